"""The noun of this room: the skeletons of many instances, as points."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.errors import SourceError
from volprep.geometry import Box, whole
from volprep.skeletons import formats
from volprep.skeletons.labels import present_ids

__all__ = ["Skeletons"]

PointArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class Skeletons(Mapping[int, PointArray]):
    """Skeletons by instance id: ``skeletons[id]`` is an array of points, (N, 3) float32.

    Parameters
    ----------
    ids : array, shape (K,), uint64
        Instances, ascending.
    offsets : array, shape (K + 1,), int64
        The points of instance ``ids[k]`` are ``points[offsets[k]:offsets[k + 1]]``.
    points : array, shape (N, 3), float32
        In (Z, Y, X) voxels, voxel centres at whole numbers.
    edges : array, shape (E, 2), int64
        Pairs of rows of `points` that are linked, the lower row first, in ascending order;
        each pair is of one instance.
    radii : array, shape (N,), float32, or None
        Distance of each point to the border of its instance, in the units of the
        spacing that it was measured with; None where nobody measured it.

    Raises
    ------
    ValueError
        If the arrays do not fit together; the message names the array.
    """

    ids: npt.NDArray[np.uint64]
    offsets: npt.NDArray[np.int64]
    points: PointArray
    edges: npt.NDArray[np.int64]
    radii: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        for fault in _faults(self):
            raise ValueError(f"skeletons: {fault}")

    @classmethod
    def from_points(
        cls, points: Mapping[int, npt.ArrayLike], edges: Mapping[int, npt.ArrayLike] | None = None
    ) -> Skeletons:
        """Gather point arrays by id; edges, where given, count from each instance's first point.

        Parameters
        ----------
        points : mapping of int to array, shape (N, 3)
            In (Z, Y, X) voxels. Instances without a point are an error.
        edges : mapping of int to array, shape (E, 2), or None
            By the same ids; an id may be missing.
        """
        ids = sorted(whole(points))
        if ids and not 0 < ids[0] <= ids[-1] < 2**64:
            wrong = ids[0] if ids[0] < 1 else ids[-1]
            raise ValueError(f"skeletons: {wrong} is no instance id; ids are 1 to 2**64 - 1")
        parts = [as_points(points[i], i) for i in ids]
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        links = [
            sort_edges(_as_edges(edges[i], i)) + first
            for i, first in zip(ids, offsets[:-1], strict=True)
            if edges is not None and i in edges
        ]
        return cls(
            np.array(ids, np.uint64),
            offsets,
            np.concatenate(parts) if parts else np.empty((0, 3), np.float32),
            np.concatenate(links) if links else np.empty((0, 2), np.int64),
        )

    @classmethod
    def from_file(cls, path: str | Path, *, labels: npt.NDArray[Any] | None = None) -> Skeletons:
        """Read ``.skeletons.npz``, SKOOTS' ``.trch`` or a ``.tif``; see `read_skeletons`."""
        path = Path(path)
        if not path.exists():
            raise SourceError(path, "no such file", "check the path")
        try:
            match path.suffix.lower():
                case ".npz":
                    return cls(**formats.read_npz(path))
                case ".trch":
                    return cls.from_points(formats.read_trch(path))
                case ".tif" | ".tiff":
                    return cls(**formats.read_tif(path, labels))
        except ValueError as error:
            raise SourceError(path, str(error), "write it again") from None
        raise SourceError(path, f"{path.suffix or 'no'} ending", "give .npz, .trch or .tif")

    def to_file(self, path: str | Path) -> None:
        """Write ``.npz`` or SKOOTS' ``.trch``, by the ending; see `write_skeletons`."""
        path = Path(path)
        match path.suffix.lower():
            case ".npz":
                arrays = {name: getattr(self, name) for name in formats.ARRAYS}
                formats.write_npz(arrays, path)
            case ".trch":
                formats.write_trch(self, path)
            case _:
                raise ValueError(f"{path}: skeletons are written to .npz or .trch")

    def __getitem__(self, instance: int) -> PointArray:
        return self.points[self._rows(instance)]

    def __iter__(self) -> Iterator[int]:
        return (int(i) for i in self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Skeletons({len(self)} instances, {len(self.points)} points)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Skeletons) and all(
            np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays can change

    def edges_of(self, instance: int) -> npt.NDArray[np.int64]:
        """Pairs of rows of ``skeletons[instance]`` that are linked, shape (E, 2)."""
        rows = self._rows(instance)
        return np.asarray(self.edges[self._edge_rows(rows)] - rows.start, np.int64)

    def radii_of(self, instance: int) -> npt.NDArray[np.float32] | None:
        """Radii of ``skeletons[instance]``, shape (N,), or None."""
        return None if self.radii is None else self.radii[self._rows(instance)]

    def only(self, ids: Iterable[int] | npt.NDArray[Any]) -> Skeletons:
        """The skeletons of `ids` that are here, whole; ids that are not are passed over."""
        if isinstance(ids, np.ndarray) and ids.dtype.kind in "uib":
            wanted = ids[ids > 0].astype(np.uint64)
        else:
            wanted = np.array([i for i in whole(ids) if i > 0], np.uint64)
        found = [rows for i in np.unique(wanted) if (rows := self._find(int(i))) is not None]
        offsets = np.cumsum([0, *(rows.stop - rows.start for rows in found)], dtype=np.int64)
        edges = [
            self.edges[self._edge_rows(rows)] + (start - rows.start)
            for rows, start in zip(found, offsets[:-1], strict=True)
        ]
        return Skeletons(
            self.ids[np.isin(self.ids, wanted)],
            offsets,
            _gather(self.points, found),
            np.concatenate(edges) if edges else self.edges[:0],
            None if self.radii is None else _gather(self.radii, found),
        )

    def crop(self, box: Box, ids: Iterable[int] | npt.NDArray[Any]) -> Skeletons:
        """The skeletons that belong to a patch: of `ids`, counted from the start of `box`.

        All the points of each id are kept, since the point that is nearest to a
        voxel of the patch may lie outside it.

        Parameters
        ----------
        box : Box
            Of the patch, in the volume of these skeletons.
        ids : iterable of int or array
            The labels of the patch (an array of any shape is taken, zeros included).
        """
        if isinstance(ids, np.ndarray) and ids.ndim == 3:
            ids = present_ids(ids)
        return self.only(ids).shift([-a for a in box.start])

    def shift(self, offset: Sequence[float]) -> Skeletons:
        """Every point moved by `offset`, (Z, Y, X) voxels."""
        move = np.asarray(offset, np.float64)
        return self.transform(lambda points: points + move)

    def transform(self, points_fn: Callable[[npt.NDArray[np.float64]], npt.ArrayLike]) -> Skeletons:
        """Every point sent through a coordinate map; edges and radii stay as they are.

        Parameters
        ----------
        points_fn : callable
            Takes points (N, 3) float64 in (Z, Y, X) voxels, returns as many.
        """
        moved = np.asarray(points_fn(self.points.astype(np.float64)), np.float32)
        return replace(self, points=moved)

    def _rows(self, instance: int) -> slice:
        rows = self._find(instance)
        if rows is None:
            raise KeyError(instance)
        return rows

    def _find(self, instance: int) -> slice | None:
        k = int(np.searchsorted(self.ids, np.uint64(instance))) if 0 < instance < 2**64 else 0
        if k == len(self.ids) or int(self.ids[k]) != instance:
            return None
        return slice(int(self.offsets[k]), int(self.offsets[k + 1]))

    def _edge_rows(self, rows: slice) -> slice:
        """The edges of the points `rows`: their lower ends ascend, so they are found by halving."""
        lower = self.edges[:, 0]
        return slice(bisect_left(lower, rows.start), bisect_left(lower, rows.stop))


def sort_edges(edges: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Each pair with its lower row first, and the pairs in ascending order."""
    pairs = np.sort(edges, axis=1)
    return np.asarray(pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))])


def _gather(values: npt.NDArray[np.float32], parts: list[slice]) -> npt.NDArray[np.float32]:
    return np.concatenate([values[part] for part in parts]) if parts else values[:0]


def as_points(points: npt.ArrayLike, instance: int) -> PointArray:
    """Check the points of one instance: (N, 3), at least one, all finite."""
    array = np.asarray(points, np.float32)
    if array.ndim != 2 or array.shape[1] != 3:
        turned = array.ndim == 2 and array.shape[0] == 3
        raise ValueError(
            f"skeleton of instance {instance}: points are {array.shape}, wanted (N, 3)"
            + ("; transpose the array" if turned else "")
        )
    if len(array) == 0:
        raise ValueError(f"skeleton of instance {instance} has no point")
    if not np.isfinite(array).all():
        raise ValueError(f"skeleton of instance {instance} has points that are not finite")
    return array


def _as_edges(edges: npt.ArrayLike, instance: int) -> npt.NDArray[np.int64]:
    array = np.asarray(edges)
    if array.size and array.dtype.kind not in "ui":
        raise TypeError(f"skeleton of instance {instance}: edges are {array.dtype}, not integers")
    return array.astype(np.int64).reshape(-1, 2)


def _faults(skeletons: Skeletons) -> Iterator[str]:
    ids, offsets, points = skeletons.ids, skeletons.offsets, skeletons.points
    edges, radii = skeletons.edges, skeletons.radii
    if ids.ndim != 1 or ids.dtype != np.uint64:
        yield f"ids are {ids.dtype} {ids.shape}, wanted uint64 (K,)"
    elif len(ids) and (ids[0] == 0 or (ids[1:] <= ids[:-1]).any()):
        yield "ids are not ascending from 1"
    elif offsets.shape != (len(ids) + 1,) or offsets.dtype != np.int64:
        yield f"offsets are {offsets.dtype} {offsets.shape}, wanted int64 ({len(ids) + 1},)"
    elif points.ndim != 2 or points.shape[1] != 3 or points.dtype != np.float32:
        yield f"points are {points.dtype} {points.shape}, wanted float32 (N, 3)"
    elif offsets[0] != 0 or offsets[-1] != len(points):
        yield f"offsets run from {offsets[0]} to {offsets[-1]}, but there are {len(points)} points"
    elif (offsets[1:] <= offsets[:-1]).any():
        yield f"instance {ids[np.argmax(offsets[1:] <= offsets[:-1])]} has no point"
    elif not np.isfinite(points).all():
        row = np.flatnonzero(~np.isfinite(points).all(axis=1))[0]
        yield (
            f"instance {ids[np.searchsorted(offsets, row, side='right') - 1]} "
            "has points that are not finite"
        )
    elif edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype != np.int64:
        yield f"edges are {edges.dtype} {edges.shape}, wanted int64 (E, 2)"
    elif len(edges) and (edges.min() < 0 or edges.max() >= len(points)):
        yield f"edges name point {edges.max()}, but there are {len(points)} points"
    elif len(edges) and (np.diff(np.searchsorted(offsets, edges, side="right"), axis=1) != 0).any():
        yield "an edge links two instances"
    elif len(edges) and ((edges[:, 1] < edges[:, 0]) | (np.diff(edges[:, 0], prepend=0) < 0)).any():
        yield "edges are not in ascending order"
    elif radii is not None and (radii.shape != (len(points),) or radii.dtype != np.float32):
        yield f"radii are {radii.dtype} {radii.shape}, wanted float32 ({len(points)},)"
    elif radii is not None and np.isnan(radii).any():
        yield "radii hold NaN"
