"""From tiles back to an image: cut and put together, or blended where they overlap."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from volprep.patching.specs import TileSpecs, is_tile_specs

__all__ = ["ArrayLike", "blend", "stitch"]

Profile = Callable[[int], npt.NDArray[np.float64]]
Weights = Literal["linear", "gaussian"]
GAUSSIAN_SIGMA = 1 / 8  # of the tile's side, as nnU-Net weighs its tiles


class ArrayLike(Protocol):
    """What results can be written into: a NumPy array, a Zarr array, an HDF5 data set."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Leading axes of the tiles, then the image's (Z)YX."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what is stored."""
        ...

    def __setitem__(self, key: Any, value: Any) -> None: ...


def stitch(
    tiles: Iterable[npt.NDArray[Any]],
    specs: Sequence[TileSpecs],
    *,
    out: ArrayLike | None = None,
) -> Any:
    """Put the kept part of each tile where it belongs.

    Parameters
    ----------
    tiles : iterable of array
        As `specs` name them; the last axes are (Z)YX, any others come first and are
        kept. Taken one after the other. A tile that its sample's border cuts short
        may be as large as the sample or padded at its end.
    specs : sequence of TileSpecs
        All tiles of one sample, in the order of `tiles`.
    out : array or None
        Where to write: anything with `shape`, `dtype` and assignment to slices, such
        as a Zarr array larger than memory. None makes a NumPy array.

    Returns
    -------
    array
        `out`, or the new array, of the tiles' leading axes and the sample's (Z)YX.

    Raises
    ------
    ValueError
        If there are no tiles, they are of several samples, lack a crop, are more or
        fewer than the specs, or `out` has another shape.
    """
    shape = _sample_shape(specs)
    for tile, spec in _paired(tiles, specs):
        lead = tile.ndim - len(shape)
        if out is None:
            out = np.zeros((*tile.shape[:lead], *shape), tile.dtype)
        _check_out(out, tile, shape)
        kept = tile[_slices(lead, spec["crop_coords"], spec["crop_size"])]
        out[_slices(lead, spec["stitch_coords"], spec["crop_size"])] = kept
    return out


def blend(
    tiles: Iterable[npt.NDArray[Any]],
    specs: Sequence[TileSpecs],
    weights: Weights = "linear",
    *,
    out: ArrayLike | None = None,
) -> Any:
    """Average tiles where they overlap, the middle of a tile counting more than its border.

    Parameters
    ----------
    tiles : iterable of array
        As for `stitch`: numbers to average, such as probabilities; never label ids.
    specs : sequence of TileSpecs
        All tiles of one sample in the order of `TiledPatching`.
    weights : {'linear', 'gaussian'}
        Along each axis: falling evenly towards both ends of a tile, or as a normal
        density with an eighth of the tile's side for its standard deviation.
    out : array or None
        As for `stitch`; integers are rounded. None makes a float32 array.

    Returns
    -------
    array
        `out`, or the new array, of the tiles' leading axes and the sample's (Z)YX.

    Raises
    ------
    ValueError
        As for `stitch`, and if the tiles are not the whole grid of one sample in order.

    Notes
    -----
    Tiles on a grid make the weights a product of one factor for each axis, so each
    tile is multiplied by weights that already add up to one and nothing has to be
    divided afterwards. In memory are the sum over one row of tiles (a tile's size
    along the first axis, the whole sample along the others) and one tile; a finished
    band is written as soon as the next row begins.
    """
    if weights not in _PROFILES:
        raise ValueError(f"weights {weights!r}: wanted {' or '.join(_PROFILES)}")
    grid = _grid_of(specs, _PROFILES[weights])
    band: _Band | None = None
    for tile, spec in _paired(tiles, specs):
        if out is None:
            out = np.zeros((*tile.shape[: -len(grid.shape)], *grid.shape), np.float32)
        _check_out(out, tile, grid.shape)
        if band is None:
            rows = min(int(spec["patch_size"][0]), grid.shape[0])
            band = _Band(out, rows, len(grid.shape))
        band.move_to(spec["coords"][0])
        band.add(tile, spec, grid)
    if band is not None:
        band.move_to(grid.shape[0])
    return out


@dataclass(frozen=True)
class _Grid:
    shape: tuple[int, ...]
    # for each axis: a tile's weights by its first voxel, adding up to one over the tiles
    profiles: list[dict[int, npt.NDArray[np.float32]]]


class _Band:
    """The sum over the rows that later tiles may still touch; earlier rows are written out."""

    def __init__(self, out: ArrayLike, rows: int, ndim: int) -> None:
        self._out, self._start, self._axis = out, 0, len(out.shape) - ndim
        shape = list(out.shape)
        shape[self._axis] = rows
        self._sum = np.zeros(shape, np.float32)

    def move_to(self, start: int) -> None:
        """Write the rows before `start` and make room after them."""
        done = min(start, self._out.shape[self._axis]) - self._start
        if done <= 0:
            return
        total = np.moveaxis(self._sum, self._axis, 0)  # a view, rows first
        rows = np.moveaxis(total[:done], 0, self._axis)
        integral = np.issubdtype(self._out.dtype, np.integer)
        target = (*[slice(None)] * self._axis, slice(self._start, self._start + done))
        self._out[target] = (np.rint(rows) if integral else rows).astype(self._out.dtype)
        total[: len(total) - done] = total[done:]
        total[len(total) - done :] = 0
        self._start = start

    def add(self, tile: npt.NDArray[Any], spec: TileSpecs, grid: _Grid) -> None:
        """Add a tile times its weights."""
        sizes = [min(p, n) for p, n in zip(spec["patch_size"], grid.shape, strict=True)]
        ndim = len(sizes)
        part = tile[_slices(self._axis, [0] * ndim, sizes)].astype(np.float32)
        for axis, (profiles, start) in enumerate(zip(grid.profiles, spec["coords"], strict=True)):
            part *= profiles[start].reshape([-1 if i == axis else 1 for i in range(ndim)])
        first = spec["coords"][0] - self._start
        where = [first, *spec["coords"][1:]]
        self._sum[_slices(self._axis, where, sizes)] += part


def _linear(size: int) -> npt.NDArray[np.float64]:
    ramp = np.arange(1, size + 1, dtype=np.float64)
    return np.minimum(ramp, ramp[::-1])


def _gaussian(size: int) -> npt.NDArray[np.float64]:
    offset = np.arange(size) - (size - 1) / 2
    bell: npt.NDArray[np.float64] = np.exp(-0.5 * (offset / (size * GAUSSIAN_SIGMA)) ** 2)
    return bell


_PROFILES: dict[str, Profile] = {"linear": _linear, "gaussian": _gaussian}


def _grid_of(
    specs: Sequence[TileSpecs], profile: Callable[[int], npt.NDArray[np.float64]]
) -> _Grid:
    shape = _sample_shape(specs)
    starts = [sorted({spec["coords"][axis] for spec in specs}) for axis in range(len(shape))]
    if [tuple(spec["coords"]) for spec in specs] != list(itertools.product(*starts)):
        raise ValueError("tiles: wanted the whole grid of one sample, the last axis fastest")
    profiles = []
    for axis, size in enumerate(shape):
        tile = min(int(specs[0]["patch_size"][axis]), size)
        raw, total = profile(tile), np.zeros(size)
        for start in starts[axis]:
            total[start : start + tile] += raw
        if not total.all():
            raise ValueError(f"tiles: none covers voxel {int(np.argmin(total))} on axis {axis}")
        profiles.append({s: (raw / total[s : s + tile]).astype(np.float32) for s in starts[axis]})
    return _Grid(shape, profiles)


def _sample_shape(specs: Sequence[TileSpecs]) -> tuple[int, ...]:
    if not specs or not all(map(is_tile_specs, specs)):
        raise ValueError("specs: wanted the TileSpecs of at least one tile")
    samples = {(spec["data_idx"], spec["sample_idx"]) for spec in specs}
    if len(samples) > 1:
        raise ValueError(f"specs: wanted the tiles of one sample, found those of {len(samples)}")
    ends = [
        [a + n for a, n in zip(spec["stitch_coords"], spec["crop_size"], strict=True)]
        for spec in specs
    ]
    return tuple(max(axis) for axis in zip(*ends, strict=True))


def _paired(
    tiles: Iterable[npt.NDArray[Any]], specs: Sequence[TileSpecs]
) -> Iterator[tuple[npt.NDArray[Any], TileSpecs]]:
    count = 0
    for tile in tiles:
        if count == len(specs):
            raise ValueError(f"tiles: there are more than the {count} specs")
        yield tile, specs[count]
        count += 1
    if count < len(specs):
        raise ValueError(f"tiles: {count} for {len(specs)} specs")


def _check_out(out: ArrayLike, tile: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    wanted = (*tile.shape[: -len(shape)], *shape)
    if tuple(out.shape) != wanted:
        raise ValueError(f"out: has the shape {tuple(out.shape)}; wanted {wanted}")


def _slices(lead: int, start: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """All of the `lead` first axes, and a box of the others."""
    box = [slice(a, a + n) for a, n in zip(start, size, strict=True)]
    return (*[slice(None)] * lead, *box)
