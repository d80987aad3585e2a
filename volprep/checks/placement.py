"""Whether labels lie where the image says: mirrored, transposed and shifted ones are noticed.

Where label borders lie, images have edges; where there are objects, they are brighter or
darker than the rest. A few blocks are enough to see which placement fits best.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from volprep.geometry import Box, Shape3, VolumeLike, three
from volprep.randomness import sample_generator

__all__ = [
    "Exchanged",
    "Misplaced",
    "Placed",
    "boxes_looked_at",
    "find_exchanged",
    "find_misplaced",
    "middle_first",
]

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[Any]
#: Borders that are smoothed, or foreground.
Shown = npt.NDArray[np.uint8]

#: Of so many cases blocks are looked at, evenly taken.
_CASES = 12
#: Voxels of all blocks of a set together, and of one block along each axis at most.
_BUDGET = 2_000_000
_BLOCK = (40, 224, 224)
_CORE_BUDGET = 1_000_000
#: How far shifts are looked for along (z, y, x).
_REACH = (2, 6, 6)
#: A better placement must fit this many times better than the stored one, ...
_TIMES = 1.5
#: ... correlate at least so much, ...
_LEAST = 0.2
#: ... and be this many standard deviations of random placements better.
_SIGMAS = 4.0
_RANDOM = 24
#: The shifts along (z, y, x) that are told; half a voxel is the habit of an annotator.
_SHIFTED = (0.7, 1.5, 1.5)
#: A shift of one case must fit this many times better, that of several less: they agree.
_BETTER_ALONE = (1.02, 1.07, 1.07)
_BETTER = (1.002, 1.03, 1.03)
#: One of several cases, where the others lie as they should, must fit so many times better, and
#: so well; of the development data none that is stored rightly comes above 1.25 and 0.32.
_BETTER_THAN_OTHERS, _WELL = 1.35, 0.4
#: Fewer border voxels in a block say nothing.
_FEWEST = 60
#: For exchanged labels so many cases are looked at, in blocks of so many voxels at least, and
#: so many of them, those that fit worst, with each other's labels.
_MOST = 100
_LEAST_BLOCK = 50_000
_SUSPECTS = 12


class Placed(NamedTuple):
    """An image and its label, opened."""

    case: str
    image: VolumeLike
    label: VolumeLike


@dataclass(frozen=True, slots=True)
class Misplaced:
    """A placement that fits better than the stored one.

    Attributes
    ----------
    case : str or None
        None where all cases together say so.
    how : str
        ``mirrored along x``, ``with y and x exchanged``, ``shifted by 3 voxels along y``.
    fit, stored : float
        The correlation of that placement, and of the stored one.
    """

    case: str | None
    how: str
    fit: float
    stored: float


class Exchanged(NamedTuple):
    """A case whose image another case's label fits, better than either's own.

    Attributes
    ----------
    case, label_of : str
        The case of the image, and that of the label.
    fit, stored : float
        The correlation of the two, and the larger one of what is stored.
    """

    case: str
    label_of: str
    fit: float
    stored: float


def find_exchanged(cases: Sequence[Placed]) -> list[Exchanged]:
    """Which cases hold each other's labels: two exchanged ones, or a row moved by one.

    Parameters
    ----------
    cases : sequence of Placed

    Returns
    -------
    list of Exchanged
        Of more than `_MOST` cases that share their shape with another, so many are looked at,
        evenly taken.

    Notes
    -----
    Measured as in `find_misplaced`, in a block of each: first how well every label fits its own
    image, and then, among the `_SUSPECTS` that fit worst, how well each fits every
    other's. It must be better by what a mirrored placement must, and better, too, than that
    label fits its own image: sections that look alike are not told.

    Of each two of the quarters of 01 to 05, 12, 15, 17 and 19 of the development data and
    the two cases of 11, all 55 exchanges are found, 13 of 15 on the sparse labels of 16,
    3 of 6 on 06 and none on CT (08); nothing is said of those that are right.
    At most 0.1 s of CPU for six cases.
    """
    shapes = Counter(case.image.shape[1:] for case in cases)
    alike = [case for case in cases if shapes[case.image.shape[1:]] > 1]
    count = min(len(alike), _MOST)
    looked = []
    for case in (alike[i * len(alike) // count] for i in range(count)):
        block = _block(case, max(_LEAST_BLOCK, _BUDGET // count), turned=False)
        if block is not None:
            looked.append((case, block, _measures(block, _inner(block.stored, block.margin))))
    looked.sort(key=lambda each: float(each[2].max()))
    told = []
    for one, block, mine in looked[:_SUSPECTS]:
        best = Exchanged(one.case, "", 0.0, 0.0)
        for other, _, theirs in looked[:_SUSPECTS]:
            if other is one or other.image.shape[1:] != one.image.shape[1:]:
                continue
            labels = _inner(_labels(other.label, block.box), block.margin)
            fits = _measures(block, labels)
            which, stored = int(np.argmax(fits)), float(max(mine.max(), theirs.max()))
            better = fits[which] > max(best.fit, _LEAST, _TIMES * stored)
            if better and fits[which] - stored > _SIGMAS * _by_chance(block, which):
                best = Exchanged(one.case, other.case, float(fits[which]), stored)
        if best.label_of:
            told.append(best)
    return told


def find_misplaced(cases: Sequence[Placed]) -> list[Misplaced]:
    """Which labels fit their image better in another placement than in the stored one.

    Parameters
    ----------
    cases : sequence of Placed
        Of one shape (Z, Y, X) each, image and label.

    Returns
    -------
    list of Misplaced
        Mirrored and transposed labels by case; a shift where all cases (the quarters of
        a single one) together say so, or where it fits one case clearly better.

    Notes
    -----
    Three correlations are made of each placement: label borders with the image's in-plane
    gradient, borders with grey values, foreground with grey values; the one that is largest
    for any placement is used for all. Random placements of the same label say how large a
    correlation is by chance.

    On real labels (nuclei, membranes, EM neurons, in 2D and 3D: 01 to 06, 11, 12, 15, 16,
    19 and the dense one of 17 of the development data) 59 of 59 that were stored mirrored
    along z, y or x, or with y and x exchanged, are found, at 1.8 times the correlation of
    the stored placement and more, and none of the 21 stored ones is suspected. Where z is as
    long as y or x, exchanges with z are looked for, too: of 12 (02, 11, 12, 19) all are
    found but z with x of one case of 11. Of shifts by
    3 voxels in the plane or 1 section all are found on 01, 03, 05, 06 and 11 (1.005 to 6
    times); along z none on 02, 12 and 19, where nuclei are blurred along z, and none on a
    single volume of 11. Nothing is found and nothing said on CT (08), which is symmetric,
    on labels of a few sections (20) and on scribbles (14, 17). At most 0.6 s of CPU a set.
    """
    looked = [block for block in _blocks(cases) if block is not None]
    found = [misplaced for block in looked for misplaced in _turned(block)]
    if found:
        return found
    return list(_shifted(looked))


def boxes_looked_at(shape: Shape3, number: int, count: int) -> tuple[list[Box], list[Box]]:
    """What will be read of an image and of its label, where the first block says enough.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X).
    number, count : int
        Which of how many cases it is.
    """
    compared, looked = min(count, _MOST), min(count, _CASES)
    budget = max(_LEAST_BLOCK, _BUDGET // compared) if _is_taken(number, count, compared) else 0
    turned = _is_taken(number, count, looked)
    if turned:
        budget = max(budget, _BUDGET // looked)
    if not budget:
        return [], []
    box = next(_places(shape, _size(shape, budget)))
    return [box], [box, *(_turned_boxes(box, shape) if turned else ())]


def _is_taken(number: int, count: int, taken: int) -> bool:
    """Whether a case is among so many that are evenly taken of all."""
    return any(i * count // taken == number for i in range(taken))


class _Turn(NamedTuple):
    """A placement: axes in another order, then mirrored ones.

    Attributes
    ----------
    how : str
        As it is told.
    axes : tuple of int
        Of the label, where the image has z, y and x.
    mirrored : tuple of int
        Those of the image along which it is mirrored.
    """

    how: str
    axes: Shape3 = (0, 1, 2)
    mirrored: tuple[int, ...] = ()

    def fits(self, shape: Shape3) -> bool:
        """Whether a label of this shape can be stored so, and another one would be seen."""
        moved = {*self.mirrored, *(a for a, b in enumerate(self.axes) if a != b)}
        return all(shape[a] > 1 and shape[a] == shape[self.axes[a]] for a in moved)

    def box(self, box: Box, shape: Shape3) -> Box:
        """Where a block of the image lies in the label."""
        sides = [(box.start[a], box.stop[a]) for a in range(3)]
        for axis in self.mirrored:
            start, stop = sides[axis]
            sides[axis] = (shape[axis] - stop, shape[axis] - start)
        stored = sorted(zip(self.axes, sides, strict=True))
        return Box(three(side[0] for _, side in stored), three(side[1] for _, side in stored))

    def labels(self, block: Labels) -> Labels:
        """What was read there, as the image lies."""
        return np.flip(block.transpose(self.axes), self.mirrored)


_TURNS = (
    *(_Turn(f"mirrored along {axis}", mirrored=(number,)) for number, axis in enumerate("zyx")),
    _Turn("turned by 180 degrees in the plane (mirrored along y and x)", mirrored=(1, 2)),
    _Turn("mirrored along z, y and x", mirrored=(0, 1, 2)),
    _Turn("with y and x exchanged", axes=(0, 2, 1)),
    _Turn("with z and x exchanged", axes=(2, 1, 0)),
    _Turn("with z and y exchanged", axes=(1, 0, 2)),
    _Turn("turned by 90 degrees in the plane (with y and x exchanged, mirrored along y)",
          axes=(0, 2, 1), mirrored=(1,)),
    _Turn("turned by 90 degrees in the plane (with y and x exchanged, mirrored along x)",
          axes=(0, 2, 1), mirrored=(2,)),
)  # fmt: skip


def _turned_boxes(box: Box, shape: Shape3) -> Iterator[Box]:
    """Where a block lies in labels that are stored mirrored, or with axes exchanged."""
    return (turn.box(box, shape) for turn in _TURNS if turn.fits(shape))


@dataclass(frozen=True, slots=True)
class _Block:
    """A block of a case: what the image shows, and the label under each placement."""

    case: str
    box: Box
    views: tuple[Array, ...]
    margin: Shape3
    stored: Labels
    others: tuple[tuple[str, Labels], ...]


def _blocks(cases: Sequence[Placed]) -> Iterator[_Block | None]:
    """One block of each of some cases, evenly taken; as large as the budget allows."""
    count = min(len(cases), _CASES)
    chosen = [cases[i * len(cases) // count] for i in range(count)]
    for case in chosen:
        yield _block(case, _BUDGET // count)


def _block(case: Placed, budget: int, *, turned: bool = True) -> _Block | None:
    shape = three(case.image.shape[1:])
    size = _size(shape, budget)
    for box in _places(shape, size):
        stored = _labels(case.label, box)
        if np.count_nonzero(_borders(np.ascontiguousarray(stored))) >= _FEWEST:
            break
    else:
        return None
    margin = three(r if n > 6 * r else 0 for r, n in zip(_REACH, size, strict=True))
    others = list(_others(case.label, box, shape)) if turned else []
    image = case.image.read(box)
    views = tuple(view for channel in image[:3] for view in _views(_inner(channel, margin)))
    return _Block(case.case, box, views, margin, stored, tuple(others))


def _others(label: VolumeLike, box: Box, shape: Shape3) -> Iterator[tuple[str, Labels]]:
    """The label as it would lie, were it stored in each other way."""
    for turn in _TURNS:
        if turn.fits(shape):
            yield turn.how, turn.labels(_labels(label, turn.box(box, shape)))


def _size(shape: Shape3, budget: int) -> Shape3:
    """A block within the budget: the shares of `_BLOCK`, with more of an axis where others end."""
    share = 1.0
    for _ in range(8):  # ends of the volume leave room for the other axes
        size = [min(n, max(1, int(share * m))) for n, m in zip(shape, _BLOCK, strict=True)]
        share *= (budget / math.prod(size)) ** (1 / 3)
    return three(min(n, max(1, int(share * m))) for n, m in zip(shape, _BLOCK, strict=True))


def _places(shape: Shape3, size: Shape3) -> Iterator[Box]:
    """The middle first, then places all over the volume."""
    for share in middle_first():
        start = three(int(s * (n - m)) for s, n, m in zip(share, shape, size, strict=True))
        yield Box.at(start, size)


def middle_first() -> Iterator[tuple[float, float, float]]:
    """Places as shares of what a block can move: the middle, then 16 all over the volume."""
    yield 0.5, 0.5, 0.5
    for z, y, x in sample_generator(0).random((16, 3)):
        yield float(z), float(y), float(x)


def _labels(label: VolumeLike, box: Box) -> Labels:
    block = label.read(box)
    return block[0] if block.ndim == 4 else block


def _inner(block: Labels, margin: Shape3, moved: Shape3 = (0, 0, 0)) -> Labels:
    """A block without its margin, or the same size moved by some voxels."""
    return block[
        tuple(slice(m + d, n - m + d) for n, m, d in zip(block.shape, margin, moved, strict=True))
    ]


def _views(image: Labels) -> tuple[Array, Array]:
    """The in-plane gradient and the smoothed grey values, each of mean 0 and deviation 1."""
    grey = image.astype(np.float32)
    low, high = np.percentile(grey[::2, ::2, ::2], [1, 99])
    # In place: memory that was not there before takes longer than the arithmetic.
    grey -= np.float32(low)
    grey /= np.float32(max(float(high - low), 1e-6))
    grey = _smooth(np.clip(grey, 0, 1, out=grey))
    steps = np.zeros((2, *grey.shape), np.float32)
    steps[0, :, 1:-1] = grey[:, 2:] - grey[:, :-2]
    steps[1, :, :, 1:-1] = grey[:, :, 2:] - grey[:, :, :-2]
    return _scaled(np.hypot(steps[0], steps[1])), _scaled(grey)


def _borders(labels: Labels) -> npt.NDArray[np.uint8]:
    """1 where another label lies beside a voxel in the plane, of C-contiguous labels."""
    depth, _, width = labels.shape
    borders = np.zeros(labels.shape, np.uint8)
    # Lines behind one another as one long one: NumPy takes as long for a short line as for 200
    # voxels of a long one.
    planes, marks = labels.reshape(depth, -1), borders.reshape(depth, -1)
    down = planes[:, width:] != planes[:, :-width]
    marks[:, width:] |= down
    marks[:, :-width] |= down
    right = np.zeros(labels.shape, np.bool_)
    np.not_equal(labels.reshape(-1)[1:], labels.reshape(-1)[:-1], out=right.reshape(-1)[:-1])
    right[:, :, -1] = False  # the next voxel is of the next line
    borders |= right
    borders.reshape(-1)[1:] |= right.reshape(-1)[:-1]
    return borders


def _around(borders: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """How many of the 3 x 3 voxels around each, in the plane, are marked; edges count twice."""
    depth, _, width = borders.shape
    rows, flat = borders.copy(), borders.reshape(depth, -1)
    sums = rows.reshape(depth, -1)
    sums[:, width:] += flat[:, :-width]
    sums[:, :-width] += flat[:, width:]
    rows[:, 0] += borders[:, 0]
    rows[:, -1] += borders[:, -1]
    around = rows.copy()
    around.reshape(-1)[1:] += rows.reshape(-1)[:-1]
    around.reshape(-1)[:-1] += rows.reshape(-1)[1:]
    for edge, inner in ((0, slice(0, 2)), (-1, slice(-2, None))):
        around[:, :, edge] = rows[:, :, edge] + rows[:, :, inner].sum(axis=2, dtype=np.uint8)
    if width == 1:
        around[:, :, 0] = 3 * rows[:, :, 0]
    return around


def _shown(labels: Labels) -> tuple[Shown | None, Shown | None]:
    """Smoothed borders and foreground, in any scale; None where they say nothing."""
    labels = np.ascontiguousarray(labels)
    borders, foreground = _borders(labels), labels != 0
    return (
        _around(borders) if borders.any() else None,
        foreground.view(np.uint8) if 0 < np.count_nonzero(foreground) < labels.size else None,
    )


def _measures(block: _Block, labels: Labels) -> npt.NDArray[np.float64]:
    """The correlations of a placement: of each channel three."""
    borders, foreground = _shown(labels)
    return np.array(
        [
            0.0 if shown is None else abs(_correlation(shown, view))
            for channel in range(len(block.views) // 2)
            for shown, view in _pairs(block, channel, borders, foreground)
        ]
    )


def _pairs(
    block: _Block, channel: int, borders: Shown | None, foreground: Shown | None
) -> tuple[tuple[Shown | None, Array], ...]:
    gradient, grey = block.views[2 * channel : 2 * channel + 2]
    return (borders, gradient), (borders, grey), (foreground, grey)


def _turned(block: _Block) -> Iterator[Misplaced]:
    """The mirrored or transposed placement that is clearly better than the stored one."""
    stored = _measures(block, _inner(block.stored, block.margin))
    others = [(how, _measures(block, _inner(labels, block.margin))) for how, labels in block.others]
    if not others:
        return
    best = int(np.argmax(np.max([stored, *(fit for _, fit in others)], axis=0)))
    how, fit = max(((how, float(fits[best])) for how, fits in others), key=lambda each: each[1])
    own = float(stored[best % 3 :: 3].max())  # a label need not fit every channel, but one
    if fit < max(_LEAST, _TIMES * own):
        return
    if fit - own > _SIGMAS * _by_chance(block, best):
        yield Misplaced(block.case, how, fit, own)


def _by_chance(block: _Block, measure: int) -> float:
    """How large the correlation of labels at random places is, from every second voxel."""
    channel, which = divmod(measure, 3)
    shown, view = _pairs(block, channel, *_shown(_inner(block.stored, block.margin)))[which]
    if shown is None:
        return math.inf
    thin = np.ascontiguousarray(shown[::2, ::2, ::2])
    seen: Array = np.ascontiguousarray(view[::2, ::2, ::2])
    rng = sample_generator(1)
    steps = (rng.uniform(0.2, 0.8, (_RANDOM, 3)) * thin.shape).astype(int)
    fits = [_correlation(np.roll(thin, tuple(step), (0, 1, 2)), seen) for step in steps]
    return float(np.sqrt(np.mean(np.square(fits))))


def _shifted(blocks: Sequence[_Block]) -> Iterator[Misplaced]:
    """The common shift along an axis that blocks, or the quarters of a single one, agree on."""
    cores = [_core(block) for block in blocks]
    if not cores:
        return
    fits = np.sum([_measures(core, _inner(core.stored, core.margin)) for core in cores], axis=0)
    measure = int(np.argmax(fits))
    pairs = [_measured(core, measure) for core in cores]
    told, alone = [], list[Misplaced]()
    for axis in range(3):
        reach = min(core.margin[axis] for core in cores)
        if reach == 0:
            continue
        profiles = [
            _profile(core, pair, axis, reach) for core, pair in zip(cores, pairs, strict=True)
        ]
        if len(cores) > 1:
            alone += _shifted_alone(cores, profiles, measure, axis)
        profile = np.mean(profiles, axis=0)
        shift = _shift(profile, _SHIFTED[axis])
        if shift is None or abs(profile[0, reach + shift]) < _LEAST:
            continue
        if abs(profile[0, reach - shift]) > abs(profile[0, reach]):
            continue  # both ways are better: what is labelled is a shell, or too large
        fit, stored = abs(profile[0, [reach + shift, reach]])
        quarters = [quarter for core in cores for quarter in _quarters(core)]
        times = (_BETTER if len(cores) > 1 else _BETTER_ALONE)[axis]
        if fit > times * stored and _agree(quarters, measure, axis, shift):
            how = f"shifted by {abs(shift)} {_plural(abs(shift), axis)} along {'zyx'[axis]}"
            told.append(Misplaced(None, how, float(fit), float(stored)))
    best = {each.case: each for each in sorted(alone, key=lambda each: each.fit)}
    yield from sorted(told, key=lambda each: each.stored / each.fit)[:1] or best.values()


def _shifted_alone(
    cores: Sequence[_Block],
    profiles: Sequence[npt.NDArray[np.float64]],
    measure: int,
    axis: int,
) -> Iterator[Misplaced]:
    """Cases whose own label alone is shifted, so clearly that no other case need agree."""
    for core, profile in zip(cores, profiles, strict=True):
        shift = _shift(profile, _SHIFTED[axis])
        if shift is None:
            continue
        reach = profile.shape[1] // 2
        fit, stored, other = abs(profile[0, [reach + shift, reach, reach - shift]])
        clear = fit >= max(_WELL, _BETTER_THAN_OTHERS * stored) and other < stored
        if clear and _agree(_quarters(core), measure, axis, shift):
            how = f"shifted by {abs(shift)} {_plural(abs(shift), axis)} along {'zyx'[axis]}"
            yield Misplaced(core.case, how, float(fit), float(stored))


def _agree(quarters: Sequence[_Block], measure: int, axis: int, shift: int) -> bool:
    """Whether the label fits better there in at least half of the quarters."""
    better = 0
    for quarter in quarters:
        pair = _measured(quarter, measure)
        plain = _profile(quarter, pair, axis, abs(shift), step=abs(shift))[0]
        better += abs(plain[2 if shift > 0 else 0]) > abs(plain[1])
    return 2 * better >= len(quarters)


def _plural(count: int, axis: int) -> str:
    noun = "section" if axis == 0 else "voxel"
    return noun if count == 1 else f"{noun}s"


def _core(block: _Block) -> _Block:
    """The middle of a block: a shift is seen in a quarter of the voxels that a mirror needs."""
    size = three(block.views[0].shape)
    inner = _size(size, _CORE_BUDGET)
    cut = [slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(size, inner, strict=True)]
    wide = [slice(c.start, c.stop + 2 * m) for c, m in zip(cut, block.margin, strict=True)]
    views = tuple(np.ascontiguousarray(view[tuple(cut)]) for view in block.views)
    return replace(block, views=views, stored=block.stored[tuple(wide)], others=())


def _quarters(block: _Block) -> list[_Block]:
    """Four parts of a block in the plane, each with its margin."""
    _, my, mx = block.margin
    _, height, width = block.views[0].shape
    parts = []
    for y in (slice(0, height // 2), slice(height // 2, height)):
        for x in (slice(0, width // 2), slice(width // 2, width)):
            stored = block.stored[:, y.start : y.stop + 2 * my, x.start : x.stop + 2 * mx]
            views = tuple(np.ascontiguousarray(view[:, y, x]) for view in block.views)
            parts.append(replace(block, views=views, stored=stored, others=()))
    return parts


def _measured(block: _Block, measure: int) -> tuple[Shown | None, Array]:
    """What a measure compares: of the labels with their margin, and of the image."""
    channel, which = divmod(measure, 3)
    return _pairs(block, channel, *_shown(block.stored))[which]


def _profile(
    block: _Block, pair: tuple[Shown | None, Array], axis: int, reach: int, *, step: int = 1
) -> npt.NDArray[np.float64]:
    """Correlations with the label moved by -reach to reach: as they are, and of the steps."""
    label, view = pair
    if label is None:
        return np.zeros((2, 2 * reach + 1))
    moved: list[list[float]] = [[], []]
    for way in range(-reach, reach + 1, step):
        start = three(m + way * (a == axis) for a, m in enumerate(block.margin))
        for row, along in zip(moved, (-1, axis), strict=True):
            row.append(_pearson(_moments(label, start, view, along)))
    return np.array(moved)


def _shift(profile: npt.NDArray[np.float64], least: float) -> int | None:
    """The shift that plain correlations and those of the steps tell alike.

    Plain correlations have wide peaks that uneven contrast moves; those of the steps have
    sharp ones, but two where labels are drawn too large. Where both agree it is a shift.
    """
    plain, steps = (_peak(row) for row in profile)
    if (
        plain is None
        or steps is None
        or abs(plain) < least
        or steps * math.copysign(1, plain) < least / 2
    ):
        return None
    return round(plain) or None


def _peak(profile: npt.NDArray[np.float64]) -> float | None:
    """Where a profile is largest, between its samples; None at its ends."""
    at = int(np.argmax(np.abs(profile)))
    if not 0 < at < len(profile) - 1:
        return None
    before, top, after = np.abs(profile[at - 1 : at + 2])
    bend = before - 2 * top + after
    return at - len(profile) // 2 + (0.5 * (before - after) / bend if bend < 0 else 0.0)


def _smooth(block: Array) -> Array:
    for axis in (1, 2):
        block = ndimage.uniform_filter1d(block, 3, axis)
    return block


def _scaled(block: Array) -> Array:
    centred: Array = block - block.mean()
    deviation = float(np.sqrt(np.mean(np.square(centred))))
    centred /= deviation or 1.0
    return centred


def _correlation(one: Shown, other: Array) -> float:
    """Pearson's, of blocks of one shape."""
    return _pearson(_moments(one, (0, 0, 0), other))


def _moments(one: Shown, start: Shape3, other: Array, axis: int = -1) -> npt.NDArray[np.float64]:
    """Means, mean squares and mean product of a block and of one inside another, or of steps."""
    from volprep.kernels.correlation import add_products

    sums = np.zeros(5, np.float64)
    add_products(one, start, other, axis, sums)
    steps = other.size - (other.size // other.shape[axis] if axis >= 0 else 0)
    return sums / max(1, steps)


def _pearson(moments: npt.NDArray[np.float64]) -> float:
    one, other, one_square, other_square, product = moments.tolist()
    size = (one_square - one * one) * (other_square - other * other)
    return (product - one * other) / math.sqrt(size) if size > 0 else 0.0
