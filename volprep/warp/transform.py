"""Draw random warps that fit their source, as 4x4 matrices and as coordinate maps."""

from __future__ import annotations

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
]

# The largest perturbation of a matrix element, and of the perspective row, at full strength.
_SHEAR, _PERSPECTIVE, _MOST_PERSPECTIVE = 0.1, 0.05, 3e-3

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
    shrunk : bool
        Whether `amount` is less than what was asked for.
    """

    map: CoordinateMap
    matrix: Floats
    attempts: int
    amount: float
    shrunk: bool


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
    fit anywhere is redrawn, then shrunk, see `draw_warp`; the result is
    float64; randomness comes from `rng`.
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
    redraws: int = 10,
) -> WarpDraw:
    """Draw a warp that fits the source, in a bounded number of attempts.

    The turn, flips, swaps, shears and perspective are drawn first, the location
    then from the interval in which they fit. Only where no location fits is
    there another draw: at most `redraws` at full strength, then ever weaker
    ones, at last flips alone.

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
        Draws at full strength after the first.

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
    for attempt, (amount, swaps) in enumerate(_strengths(warp_amount, redraws), 1):
        linear = _draw_linear(
            rng,
            aniso_factor=aniso_factor,
            sample_aniso=sample_aniso,
            amount=amount,
            lock_z=lock_z,
            flip_x=not no_x_flip,
            swaps=swaps and not no_x_flip,
            perspective=perspective,
        )
        placed = fit.place(rng, linear)
        if placed is not None:
            coordinates, matrix = placed
            return WarpDraw(coordinates, matrix, attempt, amount, amount < warp_amount)
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


def _strengths(amount: float, redraws: int) -> Iterator[tuple[float, bool]]:
    """Strength, and whether axes may be swapped, for each attempt."""
    for _ in range(redraws + 1):
        yield amount, True
    if amount > 0:
        for number in range(1, _SHRINKS + 1):
            yield amount * _SHRINK**number, True
    yield 0.0, False


def _draw_linear(
    rng: np.random.Generator,
    *,
    aniso_factor: float,
    sample_aniso: bool,
    amount: float,
    lock_z: bool,
    flip_x: bool,
    swaps: bool,
    perspective: bool,
) -> Floats:
    """A warp about the origin, source to patch."""
    matrix = np.eye(4)
    matrix[0, 0] = aniso_factor
    if swaps:
        matrix = matrix[_draw_order(rng, lock_z)]
    for axis, coin in enumerate(rng.integers(0, 2, 3).tolist()):
        if coin and (axis < 2 or flip_x):
            matrix[axis] *= -1
    if amount > 0:
        matrix = _draw_shear(rng, amount, lock_z, perspective) @ matrix
        matrix = _draw_rotation(rng, amount, lock_z) @ matrix
    if sample_aniso:
        matrix[0] /= aniso_factor
    return matrix


def _draw_order(rng: np.random.Generator, lock_z: bool) -> list[int]:
    """Which axis each row is taken from."""
    if lock_z:
        return [0, 1, 2, 3] if rng.random() < 0.5 else [0, 2, 1, 3]
    return [*rng.permutation(3).tolist(), 3]


def _draw_shear(rng: np.random.Generator, amount: float, lock_z: bool, perspective: bool) -> Floats:
    shear = rng.uniform(-_SHEAR * amount, _SHEAR * amount, (4, 4))
    shear[:, 3] = 0
    if lock_z:
        shear[0] = shear[:, 0] = 0
    if perspective:
        shear[3] = np.clip(shear[3] * _PERSPECTIVE, -_MOST_PERSPECTIVE, _MOST_PERSPECTIVE)
    else:
        shear[3] = 0
    warped: Floats = np.eye(4) + shear
    return warped


def _draw_rotation(rng: np.random.Generator, amount: float, lock_z: bool) -> Floats:
    """Uniform at full strength; at less, the same rotation by a part of its angle."""
    if lock_z:
        return rotate_z(rng.uniform(-np.pi, np.pi) * amount)
    quaternion = rng.standard_normal(4)
    length = float(np.linalg.norm(quaternion[1:]))
    angle = 2 * np.arctan2(length, abs(quaternion[0])) * amount
    axis = quaternion[1:] * np.sign(quaternion[0]) / length
    cross = np.zeros((3, 3))
    cross[[0, 1, 2], [1, 2, 0]] = -axis[[2, 0, 1]]
    cross[[1, 2, 0], [0, 1, 2]] = axis[[2, 0, 1]]
    matrix = np.eye(4)
    matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return matrix


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
