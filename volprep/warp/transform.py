"""Draw random warps that fit their source, as 4x4 matrices and as coordinate maps."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.geometry import Shape3, three
from volprep.warp.map import CoordinateMap
from volprep.warp.positions import TOLERANCE, Floats

__all__ = [
    "WarpDraw",
    "draw_displacement",
    "draw_warp",
    "get_warped_coord_transform",
    "map_of_transform",
    "rotate_x",
    "rotate_y",
    "rotate_z",
    "warp_source_shape",
]

# The largest perturbation of a matrix element, and of the perspective row, at full strength.
_SHEAR, _PERSPECTIVE, _MOST_PERSPECTIVE = 0.1, 0.05, 3e-3

# The strength of warps is told after so many, about an epoch of them, where it is below this.
_TOLD_AFTER, _WEAK = 250, 0.8
_TALLIES: dict[tuple[Shape3, Shape3], list[Any]] = {}

log = logging.getLogger(__name__)

# How much weaker each draw is than the one before, once redrawing has not helped.
_SHRINK, _SHRINKS = 0.7, 10


@dataclass(frozen=True)
class WarpDraw:
    """A warp that fits.

    Attributes
    ----------
    map : CoordinateMap
        From patch voxels to source voxels.
    matrix : array of float64, shape (4, 4)
        The same without its displacement, as `warp_slice` takes it: source to patch.
    attempts : int
        Draws that were made; 1 where the first one fitted.
    amount : float
        The strength of the draw that fitted.
    asked : float
        The strength that was asked for.
    """

    map: CoordinateMap
    matrix: Floats
    attempts: int
    amount: float
    asked: float

    @property
    def shrunk(self) -> bool:
        """Whether `amount` is less than what was asked for."""
        return self.amount < self.asked

    @property
    def strength(self) -> float:
        """The part of what was asked for, 0 to 1."""
        return self.amount / self.asked if self.asked else 1.0


def get_warped_coord_transform(
    inp_src_shape: Sequence[int],
    patch_shape: Sequence[int],
    aniso_factor: float = 2,
    sample_aniso: bool = True,
    warp_amount: float = 1.0,
    lock_z: bool = True,
    no_x_flip: bool = False,
    perspective: bool = False,
    target_src_shape: Sequence[int] | None = None,
    target_patch_shape: Sequence[int] | None = None,
    rng: np.random.Generator | None = None,
) -> Floats:
    """Draw a random warp, and where in the source it reads, as one homogeneous matrix.

    Parameters
    ----------
    inp_src_shape : sequence of int
        Of the source; its last three axes (Z, Y, X) count.
    patch_shape : sequence of three ints
        (Z, Y, X) of the patch.
    aniso_factor : float
        How much longer a voxel is along z than in the plane; rotations and
        shears are made in the stretched space.
    sample_aniso : bool
        Divide z by `aniso_factor` again, so that the patch has the voxels of
        the source. False gives a patch of isotropic voxels.
    warp_amount : float
        Strength, 0 to 1. At 0 flips, swaps and the random location stay.
    lock_z : bool
        Keep z out of rotations, swaps, shears and perspective; flips along z stay.
    no_x_flip : bool
        Neither flip along x nor swap axes.
    perspective : bool
        Add a perspective to the affine warp.
    target_src_shape, target_patch_shape : sequence of int, optional
        Of a target whose centre is that of the source, and of the patch read
        from it, whose centre is that of the patch; both must fit.
    rng : numpy.random.Generator or None
        None draws from fresh entropy: no two calls are then alike.

    Returns
    -------
    array of float64, shape (4, 4)
        Takes source (z, y, x, 1) to the patch. For `warp_slice`.

    Raises
    ------
    ValueError
        If the patch does not fit the source even unwarped.

    Notes
    -----
    After elektronn3's function of this name. Differs: the location is drawn
    from the interval in which the warped patch fits, so that no draw has to be
    thrown away and positions near the faces are as likely as others (there a
    fifth to nine tenths of the draws are rejected later); angles are uniform
    over the circle, orientations over SO(3), smaller amounts being smaller
    turns either way (there one-sided, and not uniform); a warp that does not
    fit anywhere is redrawn, and weakened only where nothing of that strength
    fits, see `draw_warp`; the result is float64; randomness comes from `rng`.
    """
    return draw_warp(
        np.random.default_rng() if rng is None else rng,
        inp_src_shape,
        patch_shape,
        aniso_factor=aniso_factor,
        sample_aniso=sample_aniso,
        warp_amount=warp_amount,
        lock_z=lock_z,
        no_x_flip=no_x_flip,
        perspective=perspective,
        target_src_shape=target_src_shape,
        target_patch_shape=target_patch_shape,
    ).matrix


def draw_warp(
    rng: np.random.Generator,
    source_shape: Sequence[int],
    patch_shape: Sequence[int],
    *,
    aniso_factor: float = 2,
    sample_aniso: bool = True,
    warp_amount: float = 1.0,
    lock_z: bool = True,
    no_x_flip: bool = False,
    perspective: bool = False,
    target_src_shape: Sequence[int] | None = None,
    target_patch_shape: Sequence[int] | None = None,
    displacement: npt.NDArray[Any] | None = None,
    grid_spacing: Sequence[float] = (1, 1, 1),
    redraws: int = 4096,
) -> WarpDraw:
    """Draw a warp that fits the source, in a bounded number of attempts.

    The turn, flips, swaps, shears and perspective are drawn first, the location
    then from the interval in which they fit. Where no location fits there is
    another draw of the same strength, so that what is drawn is as uniform as the
    source allows: a flat patch in a flat source is turned little, but flipped and
    swapped in every way that fits. Only where none of `redraws` fits (as in a
    source that is as small as the patch) are there ever weaker ones, at last flips
    alone, and a warning is logged, see `WarpDraw.strength`.

    Parameters
    ----------
    rng : numpy.random.Generator
    source_shape, patch_shape : sequence of int
        The last three axes (Z, Y, X) count.
    aniso_factor, sample_aniso, warp_amount, lock_z, no_x_flip, perspective
        As in `get_warped_coord_transform`, `target_src_shape` and
        `target_patch_shape` too.
    displacement, grid_spacing
        An elastic displacement to add, as in `CoordinateMap`; room for it is
        left. `draw_displacement` draws one.
    redraws : int
        Draws at full strength after the first; some hundred take as long as one warp.

    Returns
    -------
    WarpDraw

    Raises
    ------
    ValueError
        If the patch does not fit the source even unwarped, or a displacement
        leaves no room for it.

    Notes
    -----
    Locations are such that voxels fall on voxels wherever the map allows it:
    flips and swaps copy, and a locked z is never interpolated.
    """
    fit = _Fit(
        three(source_shape[-3:]),
        three(patch_shape[-3:]),
        *_target(source_shape, patch_shape, target_src_shape, target_patch_shape),
        displacement,
        grid_spacing,
    )
    kind = _Kind(aniso_factor, sample_aniso, lock_z, not no_x_flip, perspective)
    attempts = 0
    for amount, count, swaps in _strengths(warp_amount, redraws):
        linears = kind.draw(rng, count, amount, swaps=swaps)
        # One warp is placed as soon as it is drawn; of many, those that surely do not fit are
        # sorted out together, a hundred times faster.
        some = range(1) if count == 1 else np.flatnonzero(fit.holds(linears, lock_z)).tolist()
        for number in some:
            placed = fit.place(rng, linears[number])
            if placed is not None:
                coordinates, matrix = placed
                draw = WarpDraw(coordinates, matrix, attempts + number + 1, amount, warp_amount)
                return _told(draw, fit)
        attempts += count
    raise ValueError(
        f"patch_shape: {fit.patch} does not fit into a source of {fit.source}"
        + (" with its target and displacement" if displacement is not None else "")
        + "; make the patch smaller"
    )


def draw_displacement(
    rng: np.random.Generator,
    out_shape: Sequence[int],
    *,
    spacing: Sequence[float] = (16, 16, 16),
    magnitude: Sequence[float] = (0, 2, 2),
) -> npt.NDArray[np.float32]:
    """Draw the control points of a smooth random displacement, without a preferred direction.

    Parameters
    ----------
    rng : numpy.random.Generator
    out_shape : sequence of three ints
        (Z, Y, X) of the patch.
    spacing : sequence of three floats
        Output voxels between control points, (Z, Y, X).
    magnitude : sequence of three floats
        Standard deviation along (z, y, x) in source voxels; no control point
        moves by more than twice that.

    Returns
    -------
    array of float32, shape (3, gz, gy, gx)
        For `CoordinateMap`. Where z is not displaced one field serves all sections.
    """
    counts = [int(np.ceil((n - 1) / s)) + 1 for n, s in zip(out_shape, spacing, strict=True)]
    if magnitude[0] == 0:
        counts[0] = 1
    size = np.asarray(magnitude, np.float32)[:, None, None, None]
    drawn = rng.standard_normal((3, *counts), np.float32)
    grid: npt.NDArray[np.float32] = np.clip(drawn, -2, 2) * size
    return grid


def map_of_transform(matrix: npt.ArrayLike) -> CoordinateMap:
    """The coordinate map of a matrix that takes source voxels to patch voxels.

    Parameters
    ----------
    matrix : array, shape (4, 4)
        As `get_warped_coord_transform` returns it.

    Returns
    -------
    CoordinateMap
        The inverse. With a perspective that leaves z alone but for the divide
        (what `lock_z` with `perspective` draws), the divide leaves z alone too.

    Raises
    ------
    ValueError
        If the matrix cannot be inverted.
    """
    forward = np.asarray(matrix, np.float64)
    if forward.shape != (4, 4) or not np.isfinite(forward).all():
        raise ValueError(f"M: shape {forward.shape}, wanted a finite (4, 4) matrix")
    affine = not forward[3, :3].any()
    if affine and forward[3, 3]:
        forward = forward / forward[3, 3]
    z_row = _locked_z(forward)
    backward = np.zeros((4, 4))
    part = slice(0 if z_row is None else 1, 4)
    try:
        backward[part, part] = np.linalg.inv(forward[part, part])
    except np.linalg.LinAlgError as error:
        raise ValueError("M: cannot be inverted, two source voxels share a place") from error
    if affine:
        backward[3] = 0, 0, 0, 1
    elif backward[3, 3]:
        backward /= backward[3, 3]
    if z_row is not None:
        slope, offset = z_row
        backward[0, 0], backward[0, 3] = 1 / slope, -offset / slope
    return CoordinateMap(backward, lock_z=z_row is not None and not affine)


def rotate_z(angle: float) -> Floats:
    """Turn about z, y towards x, by `angle` radians: a (4, 4) matrix for (z, y, x, 1)."""
    return _turn(angle, 1, 2)


def rotate_y(angle: float) -> Floats:
    """Turn about y, x towards z, by `angle` radians: a (4, 4) matrix for (z, y, x, 1).

    Notes
    -----
    elektronn3's `rotate_y` turns about x, and its `rotate_x` about y.
    """
    return _turn(angle, 2, 0)


def rotate_x(angle: float) -> Floats:
    """Turn about x, z towards y, by `angle` radians: a (4, 4) matrix for (z, y, x, 1).

    Notes
    -----
    elektronn3's `rotate_x` turns about y, and its `rotate_y` about x.
    """
    return _turn(angle, 0, 1)


def _turn(angle: float, source: int, towards: int) -> Floats:
    matrix = np.eye(4)
    matrix[source, source] = matrix[towards, towards] = np.cos(angle)
    matrix[towards, source] = np.sin(angle)
    matrix[source, towards] = -matrix[towards, source]
    return matrix


def warp_source_shape(
    patch_shape: Sequence[int],
    *,
    aniso_factor: float = 2,
    sample_aniso: bool = True,
    lock_z: bool = True,
    displacement: Sequence[float] = (0, 0, 0),
) -> Shape3:
    """The source in which every warp of full strength finds a place.

    Parameters
    ----------
    patch_shape : sequence of three ints
        (Z, Y, X).
    aniso_factor, sample_aniso, lock_z
        As in `get_warped_coord_transform`.
    displacement : sequence of three floats
        The largest displacement along (z, y, x), each way.

    Returns
    -------
    tuple of three ints
        (Z, Y, X): the box around the sphere (with `lock_z` the disc) around the patch,
        with what shears add; a perspective adds up to some voxels more.
    """
    # Lengths in voxels of the plane: the source's z is stretched before it is turned, and the
    # patch's only where it is not divided by the factor again.
    source = np.array([aniso_factor, 1.0, 1.0])
    patch = source if sample_aniso else np.ones(3)
    half = (np.asarray(patch_shape, np.float64) - 1) / 2 * patch
    turned = half.copy()
    first = 1 if lock_z else 0
    # A shear of s takes back up to 1 / (1 - (number of axes) s) in the worst direction.
    turned[first:] = np.linalg.norm(half[first:]) / (1 - (3 - first) * _SHEAR)
    wanted = 2 * (turned / source + np.asarray(displacement)) + 1
    return three(np.ceil(wanted - TOLERANCE).astype(int).tolist())


def _strengths(amount: float, redraws: int) -> Iterator[tuple[float, int, bool]]:
    """Strength, how many draws, and whether axes may be swapped, one after the other."""
    yield amount, 1, True
    count, left = 64, redraws
    while left > 0:
        yield amount, min(count, left), True
        left -= count
        count *= 4
    if amount > 0:
        for number in range(1, _SHRINKS + 1):
            yield amount * _SHRINK**number, max(1, min(redraws // 64, 64)), True
    yield 0.0, 1, False


def _told(draw: WarpDraw, fit: _Fit) -> WarpDraw:
    """The draw, after a word in the log where the warps of a source have become too weak."""
    tally = _TALLIES.setdefault((fit.source, fit.patch), [0, 0.0])
    tally[0] += 1
    tally[1] += draw.strength
    if tally[0] == _TOLD_AFTER:
        mean = tally[1] / tally[0]
        if mean < _WEAK:
            log.warning(
                "warps of %s from %s have %.0f%% of the strength asked for, as few fit; give a "
                "larger source (see warp_source_shape), or lock_z",
                fit.patch, fit.source, 100 * mean,
            )  # fmt: skip
        _TALLIES[fit.source, fit.patch] = [0, 0.0]
    return draw


@dataclass(frozen=True)
class _Kind:
    """What is drawn: a warp about the origin, source to patch."""

    aniso_factor: float
    sample_aniso: bool
    lock_z: bool
    flip_x: bool
    perspective: bool

    def draw(
        self, rng: np.random.Generator, count: int, amount: float, *, swaps: bool = True
    ) -> Floats:
        """So many of one strength, (count, 4, 4)."""
        matrices = np.tile(np.diag([self.aniso_factor, 1.0, 1.0, 1.0]), (count, 1, 1))
        if swaps and self.flip_x:
            order = np.tile(np.arange(4), (count, 1))
            order[:, 1 if self.lock_z else 0 : 3] = rng.permuted(
                order[:, 1 if self.lock_z else 0 : 3], axis=1
            )
            matrices = np.take_along_axis(matrices, order[:, :, None], 1)
        coins = rng.integers(0, 2, (count, 3)) * [1, 1, int(self.flip_x)]
        matrices[:, :3] *= (1 - 2 * coins)[:, :, None]
        if amount > 0:
            matrices = self._shears(rng, count, amount) @ matrices
            matrices = _draw_rotation(rng, amount, self.lock_z, count) @ matrices
        if self.sample_aniso:
            matrices[:, 0] /= self.aniso_factor
        return matrices

    def _shears(self, rng: np.random.Generator, count: int, amount: float) -> Floats:
        shears = rng.uniform(-_SHEAR * amount, _SHEAR * amount, (count, 4, 4))
        shears[:, :, 3] = 0
        if self.lock_z:
            shears[:, 0] = shears[:, :, 0] = 0
        bottom = np.clip(shears[:, 3] * _PERSPECTIVE, -_MOST_PERSPECTIVE, _MOST_PERSPECTIVE)
        shears[:, 3] = bottom * self.perspective
        warped: Floats = np.eye(4) + shears
        return warped


def _draw_rotation(
    rng: np.random.Generator, amount: float, lock_z: bool, size: int | None = None
) -> Floats:
    """Uniform at full strength; at less, the same rotations by a part of their angles."""
    count = 1 if size is None else size
    turns = np.tile(np.eye(4), (count, 1, 1))
    if lock_z:
        angle = rng.uniform(-np.pi, np.pi, count) * amount
        turns[:, 1, 1] = turns[:, 2, 2] = np.cos(angle)
        turns[:, 2, 1] = np.sin(angle)
        turns[:, 1, 2] = -turns[:, 2, 1]
    else:
        quaternions = rng.standard_normal((count, 4))
        lengths = np.linalg.norm(quaternions[:, 1:], axis=1)
        angle = 2 * np.arctan2(lengths, np.abs(quaternions[:, 0])) * amount
        axis = quaternions[:, 1:] * (np.sign(quaternions[:, 0]) / lengths)[:, None]
        cross = np.zeros((count, 3, 3))
        cross[:, [0, 1, 2], [1, 2, 0]] = -axis[:, [2, 0, 1]]
        cross[:, [1, 2, 0], [0, 1, 2]] = axis[:, [2, 0, 1]]
        sin, cos = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
        turns[:, :3, :3] += sin * cross + (1 - cos) * cross @ cross
    return turns[0] if size is None else turns


def _locked_z(forward: Floats) -> tuple[float, float] | None:
    """Slope and offset of z where a matrix moves z by nothing else; None where it does."""
    if forward[1:, 0].any() or not forward[0, 0]:
        return None
    mixing, divisor = forward[0, 1:3], forward[3, 1:3]
    if not divisor.any():
        return None if mixing.any() else (forward[0, 0], forward[0, 3])
    # Moving the patch's corner to its place adds a multiple of the divisor to z.
    unit = divisor / np.abs(divisor).max()
    share = float(mixing / np.abs(divisor).max() @ unit / (unit @ unit))
    if np.abs(mixing - share * divisor).max() > 1e-4 * np.abs(mixing).max():
        return None
    return forward[0, 0], float(forward[0, 3] - share * forward[3, 3] + share)


@dataclass(frozen=True)
class _Fit:
    """A source, a patch, and perhaps a target: where a warp about the origin may be placed."""

    source: Shape3
    patch: Shape3
    target_start: Shape3 | None
    target_source: Shape3 | None
    target_patch_start: Shape3 | None
    target_patch: Shape3 | None
    displacement: npt.NDArray[Any] | None
    grid_spacing: Sequence[float]

    def place(
        self, rng: np.random.Generator, linear: Floats
    ) -> tuple[CoordinateMap, Floats] | None:
        """Draw a location, or return None where there is none."""
        to_centre = np.eye(4)
        to_centre[:3, 3] = (np.array(self.patch) - 1) / 2
        matrix = to_centre @ linear
        coordinates = map_of_transform(matrix)
        if self.displacement is not None:
            z, y, x = (float(s) for s in self.grid_spacing)
            coordinates = replace(
                coordinates, displacement=self.displacement, grid_spacing=(z, y, x)
            )
        interval = self._interval(coordinates)
        if interval is None:
            return None
        corner = coordinates.source_points(np.zeros((1, 3)))[0]
        origin = np.eye(4)
        origin[:3, 3] = -_draw_position(rng, *interval, corner)
        return coordinates.relative_to(origin[:3, 3].tolist()), matrix @ origin

    def holds(self, linears: Floats, lock_z: bool) -> npt.NDArray[np.bool_]:
        """Which of many warps about the origin find a place."""
        lowest, highest, valid = _reach(linears, lock_z, self.patch, (0, 0, 0), self.patch)
        first, last = -lowest, np.array(self.source) - 1 - highest
        if self.displacement is not None:
            first = first - self.displacement.min((1, 2, 3))
            last = last - self.displacement.max((1, 2, 3))
        if self.target_patch is not None and self.target_patch_start is not None:
            lowest, highest, _ = _reach(
                linears, lock_z, self.patch, self.target_patch_start, self.target_patch
            )
            start = np.array(self.target_start)
            first = np.maximum(first, start - lowest)
            last = np.minimum(last, start + self.target_source - 1 - highest)
        return valid & (first <= last + TOLERANCE).all(1)

    def _interval(self, coordinates: CoordinateMap) -> tuple[Floats, Floats] | None:
        """Lowest and highest shift for which everything lies inside."""
        try:
            low, high = coordinates.source_extent(self.patch)
        except ValueError:
            return None
        first, last = -low, np.array(self.source) - 1 - high
        if self.target_patch is not None and self.target_patch_start is not None:
            inner = CoordinateMap.linear(np.eye(3), source_centre=self.target_patch_start)
            low, high = inner.then(coordinates).source_extent(self.target_patch)
            start = np.array(self.target_start)
            first = np.maximum(first, start - low)
            last = np.minimum(last, start + self.target_source - 1 - high)
        if np.any(first > last + TOLERANCE):
            return None
        return first, np.maximum(first, last)


def _reach(
    linears: Floats, lock_z: bool, patch: Shape3, start: Shape3, shape: Shape3
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Where a part of the patch lies in the source, low and high, (N, 3) each, about the origin.

    And which warps send nothing through infinity.
    """
    far = np.array(shape) - 1
    corners = np.array(list(np.ndindex(2, 2, 2))) * far + np.array(start)
    placed = np.column_stack([corners - (np.array(patch) - 1) / 2, np.ones(8)])
    if lock_z:
        plane = np.linalg.inv(linears[:, 1:, 1:]) @ placed[:, 1:].T
        depth = placed[:, 0] / linears[:, :1, 0]
        reached = np.concatenate([depth[:, None], plane[:, :2] / plane[:, 2:]], 1)
        divisor = plane[:, 2]
    else:
        whole = np.linalg.inv(linears) @ placed.T
        reached, divisor = whole[:, :3] / whole[:, 3:], whole[:, 3]
    return reached.min(2), reached.max(2), (divisor > 0).all(1)


def _draw_position(rng: np.random.Generator, first: Floats, last: Floats, corner: Floats) -> Floats:
    """A shift between `first` and `last` that puts `corner` on a voxel wherever one does."""
    low = np.ceil(first + corner - TOLERANCE)
    count = np.floor(last + corner + TOLERANCE) - low + 1
    drawn = rng.random(3)
    whole = low + np.floor(drawn * count) - corner
    return np.where(count >= 1, whole, first + drawn * (last - first))


def _target(
    source: Sequence[int],
    patch: Sequence[int],
    target_source: Sequence[int] | None,
    target_patch: Sequence[int] | None,
) -> tuple[Shape3 | None, Shape3 | None, Shape3 | None, Shape3 | None]:
    """Start and shape of the target in the source, and of its patch in the patch."""
    if target_source is None and target_patch is None:
        return None, None, None, None
    there = three((source if target_source is None else target_source)[-3:])
    here = three((patch if target_patch is None else target_patch)[-3:])
    return (
        centred_start("target_src", three(source[-3:]), there),
        there,
        centred_start("target_patch_shape", three(patch[-3:]), here),
        here,
    )


def centred_start(name: str, outer: Shape3, inner: Shape3) -> Shape3:
    """Where `inner` begins in `outer` when both have one centre.

    Raises
    ------
    ValueError
        Where the centre would fall between voxels.
    """
    difference = np.subtract(outer, inner)
    if np.any(difference % 2):
        raise ValueError(
            f"{name}: {inner} has no common centre with {outer}; the sizes of an axis "
            "must differ by an even number of voxels, or say where it begins"
        )
    return three((difference // 2).tolist())
