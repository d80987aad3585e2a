"""What the voxels of a label say of how it was made: intensities, soft edges, colours, copies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from volprep.cases import Case
from volprep.checks.measure import CheckedLabel
from volprep.checks.placement import middle_first
from volprep.errors import SourceError
from volprep.findings import Finding, Level
from volprep.geometry import Box, VolumeLike, three
from volprep.sources import Volume

__all__ = [
    "Looked",
    "colours_of",
    "ends_at_chunks",
    "exchanged_background",
    "judge_content",
    "judge_image",
    "left_unlabelled",
    "likeness_of_sections",
    "nested_ids",
    "pieces_of",
    "swapped_by_dtype",
]

Array = npt.NDArray[Any]

#: What is looked at: a block of at most so many voxels along (z, y, x).
_BLOCK = (12, 192, 192)
#: So many planes more, before and behind, where whole objects are wanted.
_DEEP = 20
#: Fewer border voxels in a block say nothing.
_FEWEST = 50
#: Of the places where values change, the share that lies between its neighbours: at most
#: 0.013 in any real label that was looked at, 0.3 and more in images and soft masks.
_BETWEEN = 0.1
_CLEAN = 0.05
#: Of neighbours, the share that differs: 0.02 to 0.3 in soft masks, 0.4 to 0.99 in images.
_BUSY = 0.35
#: A piece of fewer voxels is a speck; so many specks for each id are a scattered label.
_SPECK = 5
_SCATTERED = 5
#: Specks that hold less of what is labelled are crumbs.
_SPECKS = 0.02
#: In a label, specks hold at most this share of what is not 0; in a dark image more.
_SPECKLED = 0.05
#: Grey values of a smooth, dark image lie in terraces: this share of borders is one step.
_TERRACED = 0.5
#: Fewer voxels have no brightness; ids that are brighter than fewer of the others neither.
_FEW = 20
_APART = 0.8
#: So many times as many voxels that look labelled and are not: not all is annotated.
_ALIKE = 3
#: So many faces between chunks are looked at; of what is there, this share of the foreground
#: lies in front of chunks that were lost.
_FACES = 96
_ENDED = 0.4
#: A background holds this share of all, and this share of it hangs together; beside it lie so
#: many objects, most of which fill so much of their convex hull, in so many planes.
_MOSTLY = 0.5
_ONE_PIECE = 0.98
_SEVERAL = 3
_SOLID = 0.88
_PLANES = 4
#: So many values that count from 1 are classes, or a few ids.
_CLASSES = 8
_FEW_IDS = 4
#: Of what is labelled, the share of ids that lie within others.
_INSIDE = 0.02
#: Of noise, what one voxel says of the next beyond chance; of labels it is 0.3 and more along
#: some direction. So much must be labelled for it to be asked, and so much of that lie in specks.
_BY_CHANCE = 0.1
_LABELLED = 0.02
_IN_SPECKS = 0.3
#: An outline has so many voxels in a plane, and few holes, which hold half as many at least.
_LINE = 12
_HOLES = 3
_MOST_ID = 2**63 - 1
_SIGNED = 2**15
#: Between sections, the share of the labelled voxels whose id changes.
_ANEW = 0.5


class Texture(NamedTuple):
    """How the values of a block change in the plane.

    Attributes
    ----------
    borders : int
        Pairs of neighbours that differ.
    busy : float
        Their share of all pairs.
    between : float
        Triples of neighbours whose middle lies between the others, for each such pair.
    """

    borders: int
    busy: float
    between: float

    @classmethod
    def of(cls, block: Array) -> Texture:
        """Of a block (Z, Y, X)."""
        pairs = borders = between = 0
        for axis in (1, 2):
            lines = np.moveaxis(block, axis, -1)
            pairs += lines[..., 1:].size
            borders += int(np.count_nonzero(lines[..., 1:] != lines[..., :-1]))
            a, b, c = lines[..., :-2], lines[..., 1:-1], lines[..., 2:]
            between += int(np.count_nonzero(((a < b) & (b < c)) | ((a > b) & (b > c))))
        return cls(borders, borders / max(pairs, 1), between / max(borders, 1))

    @property
    def like_labels(self) -> bool:
        """Whether the values lie in patches with hard borders."""
        return self.between <= _CLEAN and self.busy <= _BUSY


class Looked(NamedTuple):
    """A block of a label that has borders, and what an image shows there.

    Attributes
    ----------
    block : ndarray, shape (Z, Y, X)
    image : ndarray, shape (C, Z, Y, X), or None
    place : Box
        Where it lies.
    label : VolumeLike
    """

    block: Array
    image: Array | None
    place: Box
    label: VolumeLike

    @classmethod
    def box(cls, label: VolumeLike) -> Box:
        """Where it is looked at first."""
        return _box(label, next(middle_first()))

    @classmethod
    def at(cls, image: VolumeLike | None, label: VolumeLike) -> Looked:
        """From the middle of the label, or wherever there is something."""
        box, block = _busiest(label)
        return cls(block, None if image is None else image.read(box), box, label)

    @staticmethod
    def around(box: Box, label: VolumeLike) -> Box:
        """A box with more planes, so that it holds whole objects."""
        return box.grow((_DEEP, 0, 0)).clip(label.shape)

    def deep(self) -> Array:
        """The block with more planes."""
        block: Array = self.label.read(self.around(self.place, self.label))[0]
        return block


def judge_content(
    case: Case,
    image: Volume | None,
    label: Volume,
    facts: CheckedLabel,
    looked: Looked,
    *,
    instances: bool,
) -> Iterator[Finding]:
    """What a label that could be read is, if it is not what it should be; the worst alone."""

    def finding(name: str, found: str, todo: str | None = None) -> Finding:
        return Finding(name, found, todo=todo, case=case.name, path=Path(label.name))

    if len(facts.ids) and int(facts.ids[-1]) > _MOST_ID:
        over = int(np.count_nonzero(facts.ids > np.uint64(_MOST_ID)))
        ids = "1 id is" if over == 1 else f"{over} ids are"
        yield finding("ids-too-large", f"{ids} beyond 2**63 - 1 (up to {facts.ids[-1]})")
        return
    yield from _values(facts, finding)
    block = looked.block
    texture = Texture.of(block)
    if texture.borders < _FEWEST:
        return
    seen = None if looked.image is None else looked.image[0]
    if seen is not None and np.array_equal(seen, block):
        yield finding("image-equals-label", "the label holds the same values as the image")
    elif texture.between > _BETWEEN and not _counted(facts, _FEW_IDS if instances else _CLASSES):
        if seen is not None and _swapped(seen, block):
            yield _exchanged(case, Path(label.name))
        elif texture.busy <= _BUSY or _two_valued(block):
            values = "1 value" if len(facts.ids) == 1 else f"{len(facts.ids)} values"
            found = f"{values}, and grey ones along {texture.between:.0%} of the borders"
            half = -(-int(facts.ids[-1]) // 2)
            todo = (
                f"`labels: {{threshold: {half}}}` makes a mask of it; or export it without "
                "smoothing, resizing or JPEG"
            )
            yield finding("label-antialiased", found, todo)
        else:
            found = (
                f"{len(facts.ids)} values, and {texture.busy:.0%} of neighbouring voxels differ: "
                "these are intensities, not labels"
            )
            yield finding("label-intensities", found)
    else:
        noise = _by_chance(block)
        scattered = list(_scattered(block, finding)) if instances and len(facts.ids) > 1 else []
        yield from scattered
        if noise is not None:
            yield from [] if scattered else [finding("label-noise", noise)]
            return
        yield from _outlines(block, finding)
        if instances:
            yield from _by_section(block, finding)
        if image is not None and seen is not None and image.shape[0] == 1:
            yield from _label_for_image(case, image, seen, "warning")


def nested_ids(block: Array) -> tuple[int, int] | None:
    """Whether objects lie within others, as the parts of a class map do and objects do not.

    Parameters
    ----------
    block : ndarray, shape (Z, Y, X)

    Returns
    -------
    tuple of int, or None
        How many objects border on one other alone and on no background, and the id of the
        largest of them; None where there are next to none.

    Notes
    -----
    Counted in voxels: what lies within others must hold `_INSIDE` of all that is labelled.
    A speck or a supervoxel within a neuron is none of it. Objects at the faces of the block do
    not count, as nobody sees what they border on.
    """
    import cc3d

    objects = cc3d.connected_components(np.array(block), connectivity=6).astype(np.int64)
    count = int(objects.max()) + 1
    pairs = []
    for axis in range(3):  # the layers of an axis behind one another, as one long line
        step = math.prod(objects.shape[axis + 1 :])
        lines = objects.reshape(-1, objects.shape[axis] * step)
        one, other = lines[:, step:], lines[:, :-step]
        apart = one != other
        one, other = one[apart], other[apart]
        pairs += [one * count + other, other * count + one]
    met = np.unique(np.concatenate(pairs))
    sizes = np.bincount(objects.ravel())
    mine, first, neighbours = np.unique(met // count, return_index=True, return_counts=True)
    lone = (neighbours == 1) & (met[first] % count != 0) & ~np.isin(mine, _faces_of(objects))
    inside = mine[lone & (mine != 0)]
    if not len(inside) or sizes[inside].sum() < _INSIDE * sizes[1:].sum():
        return None
    largest = inside[np.argmax(sizes[inside])]
    return len(inside), int(block[objects == largest][0])


def exchanged_background(looked: Looked, foreground: float) -> tuple[int, int] | None:
    """Whether one value surrounds everything else, as the background should.

    Returns
    -------
    tuple of int, or None
        That value, and how many even pieces lie in it, in a few planes; None where it is 0, or
        is no background.

    Notes
    -----
    What looks alike and is sound: membranes of 1 around cells of 0 (which are less than half),
    cells of 1 so close that they are one, with gaps between them (which are star-shaped), and
    dense labels (of which none is more than half). Objects are compact: their convex hull is
    hardly larger than they are.
    """
    block = looked.block
    if foreground < _MOSTLY:
        return None
    values, counts = np.unique(block, return_counts=True)
    value = values[np.argmax(counts)]
    if value == 0 or counts.max() < _MOSTLY * block.size:
        return None
    import cc3d

    pieces = compact = 0
    for plane in block[:: max(1, len(block) // _PLANES)]:
        ground = cc3d.connected_components((plane == value).astype(np.uint8), connectivity=4)
        sizes = np.bincount(ground.ravel())[1:]
        if len(sizes) == 0 or sizes.max() < _ONE_PIECE * sizes.sum():
            return None
        objects = cc3d.connected_components((plane != value).astype(np.uint8), connectivity=8)
        for number, place in enumerate(_boxes(objects), 1):
            piece = objects[place] == number
            if np.count_nonzero(piece) >= _FEW:
                pieces += 1
                compact += _solidity(piece) >= _SOLID
    return (int(value), pieces) if pieces >= _SEVERAL and compact > pieces / 2 else None


def left_unlabelled(looked: Looked) -> tuple[int, float] | None:
    """Whether much that looks like a labelled object is 0, as where not all is annotated.

    Returns
    -------
    tuple of int and float, or None
        An id, and how many times as many voxels of 0 as of any id are as bright (or dark) as
        three quarters of its own; None where brightness does not tell the labelled from
        the rest, or where they are no more than `_ALIKE` times as many.

    Notes
    -----
    Of the development data, this is at most 0.42 in blocks of the dense labels 01, 02, 04, 05,
    08, 11 and 15, and 4.2 and more in 8 of the 10 images of 14 and 16, of which a few objects
    are annotated (1.4 and 1.5 in the two where most are); 18 for the centres of nuclei of 04.
    Where brightness tells nothing (17, 20) it does not tell either.
    """
    if looked.image is None:
        return None
    from scipy import ndimage

    # Photons are counted one by one: unlike noise, objects outlast a mean over their neighbours.
    grey = ndimage.uniform_filter(looked.image[0].astype(np.float32), (1, 3, 3))
    zero = np.sort(grey[looked.block == 0])
    labelled = grey[looked.block != 0]
    ids, sizes = np.unique(looked.block[looked.block != 0], return_counts=True)
    found = []
    for label in ids[np.argsort(-sizes, kind="stable")][:8]:
        own = grey[looked.block == label]
        if len(own) < _FEW or len(zero) < _FEW:
            continue
        brighter = float(np.searchsorted(zero, own).mean()) / len(zero)
        sign = 1 if brighter > 0.5 else -1
        if max(brighter, 1 - brighter) < _APART:
            continue
        bound = np.percentile(sign * own, 25)
        alike = int(np.count_nonzero(sign * zero >= bound))
        others = int(np.count_nonzero(sign * labelled >= bound))
        found.append((alike / max(others, 1), int(label)))
    times, label = sorted(found)[len(found) // 2] if found else (0.0, 0)
    return (label, float(times)) if times > _ALIKE else None


def likeness_of_sections(block: Array) -> float | None:
    """The correlation of sections with the next, without their noise; None where there is none.

    Parameters
    ----------
    block : ndarray, shape (Z, Y, X)

    Returns
    -------
    float or None
        The median over the block's sections; those that hold one value say nothing.
    """
    from scipy import ndimage

    smooth = ndimage.uniform_filter(block.astype(np.float32), (1, 5, 5)).reshape(len(block), -1)
    held = [plane for plane in smooth if plane.std() > 0]
    if len(held) < 2:
        return None
    return float(np.median([np.corrcoef(a, b)[0, 1] for a, b in pairwise(held)]))


def pieces_of(block: Array) -> int:
    """In how many pieces the ids of a block lie, together.

    In 3D a block cuts an object that winds through it; pieces that touch its faces do not count.
    """
    import cc3d

    pieces = cc3d.connected_components(np.array(block), connectivity=26)
    if len(block) == 1:
        return int(pieces.max())
    sizes = np.bincount(pieces.ravel())
    sizes[np.unique(_faces_of(pieces))] = 0
    return int(np.count_nonzero(sizes[1:] >= _FEW))


def _faces_of(block: Array) -> Array:
    """The values on the faces of a block; of a single plane, on its border."""
    sides = [block[:, [0, -1]].ravel(), block[:, :, [0, -1]].ravel()]
    return np.concatenate(sides if len(block) == 1 else [block[[0, -1]].ravel(), *sides])


def _boxes(pieces: Array) -> list[tuple[slice, ...]]:
    from scipy import ndimage

    return list(ndimage.find_objects(pieces))


def _solidity(piece: Array) -> float:
    """The share of its convex hull that a piece of a plane fills."""
    from scipy.spatial import ConvexHull, QhullError

    y, x = np.nonzero(piece)
    corners = np.concatenate([np.stack([y + a, x + b], 1) for a in (0, 1) for b in (0, 1)])
    try:
        return len(y) / float(ConvexHull(corners).volume)  # of a plane the volume is the area
    except QhullError:
        return 1.0


def ends_at_chunks(label: Volume, foreground: float) -> bool:
    """Whether objects end where chunks do: those behind were lost, and not left out as empty.

    Writers leave chunks of background out. An object hardly ever ends at the very voxel where a
    chunk does, so that in front of such a chunk there is next to nothing; in front of one
    that was lost there is as much as anywhere.

    Parameters
    ----------
    label : Volume
        Labels with chunks that were never written.
    foreground : float
        The share of its voxels that are not 0.

    Notes
    -----
    Looks at the faces of up to `_FACES` chunks; nothing is said on fewer than `_FEWEST`
    voxels, or of labels without a chunk next to a missing one.
    """
    grid = [-(-n // c) for n, c in zip(label.shape[1:], label.chunks, strict=True)]
    faces = [(axis, index) for axis in range(3) for index in np.ndindex(*grid) if index[axis]]
    step = -(-len(faces) // _FACES)
    ended = looked = 0
    for axis, index in faces[::step]:
        start = [i * c for i, c in zip(index, label.chunks, strict=True)]
        stop = [min(a + c, n) for a, c, n in zip(start, label.chunks, label.shape[1:], strict=True)]
        start[axis], stop[axis] = start[axis] - 1, start[axis] + 1
        pair = np.moveaxis(label.read(Box(three(start), three(stop)))[0] != 0, axis, 0)
        counts = np.count_nonzero(pair, axis=(1, 2))
        if (counts == 0).any():  # one side is empty: what lies on the other has ended here
            ended += int(counts.sum())
            looked += pair[0].size * bool(counts.any())
    return ended >= _FEWEST and ended > _ENDED * foreground * looked


def judge_image(case: Case, image: Volume, *, level: Level | None = None) -> Iterator[Finding]:
    """Whether what is given as an image is a label: whole numbers in pieces with hard borders."""
    if image.shape[0] == 1:
        yield from _label_for_image(case, image, _busiest(image)[1], level)


def swapped_by_dtype(case: Case, image: Volume | None) -> Finding | None:
    """Whether a label that cannot be read is the image: fractions there, and ids in the image."""
    if image is None or case.label is None:
        return None
    try:
        raw = case.label.open()
        box, block = _busiest(raw)
        if not _swapped(image.read(box)[0], block):
            return None
    except (SourceError, ValueError):
        return None
    return _exchanged(case, Path(raw.name))


def _exchanged(case: Case, path: Path) -> Finding:
    """That image and label are swapped, and the names of their folders, where those differ."""
    found, todo = "the label looks like an image, and the image like a label", None
    image = case.image.path
    here, there = image.parent, path.parent
    if here != there and here.parent == there.parent and not case.image.path.is_dir():
        todo = (
            f"swap them: rename the two folders, or set `image_dir: {there.name}` and "
            f"`label_dir: {here.name}`"
        )
    return Finding("images-labels-swapped", found, todo=todo, case=case.name, path=path)


def colours_of(case: Case, image: Volume | None) -> Finding | None:
    """What the channels of a label with several are: colours, one channel a class, or an image."""
    if case.label is None:
        return None
    try:
        raw = case.label.open()
        channels = raw.shape[0]
        if channels < 2:
            return None
        block = raw.read(_box(raw, (0.5, 0.5, 0.5)))
    except SourceError:
        return None
    path = Path(raw.name)
    if raw.axes[-1:] != "S" and (masks := _masks(block)) is not None:
        name, found = masks
        return Finding(name, found, case=case.name, path=path)
    colours = np.unique(block.reshape(channels, -1), axis=1).shape[1]
    if colours > block[0].size // 16 and colours > 64:
        if image is not None and any(judge_image(case, image)):
            return _exchanged(case, path)
        found = f"{channels} channels and {colours} colours in {block[0].size} voxels: an image"
        return Finding("label-intensities", found, case=case.name, path=path, level="error")
    grey = " (all grey)" if (block == block[:1]).all() else ""
    found = f"{channels} channels, {colours} colours{grey} where one id for each voxel is wanted"
    return Finding("label-colours", found, case=case.name, path=path)


def _masks(block: Array) -> tuple[str, str] | None:
    """The finding for channels that are masks, one a class or a region; None where they are not.

    Parameters
    ----------
    block : ndarray, shape (C, Z, Y, X)
    """
    flat = (block != 0).reshape(len(block), -1)
    many = any(len(np.unique(channel[channel != 0])) > 1 for channel in block)
    if many or not flat.any() or (flat == flat[:1]).all():
        return None  # ids, nothing, or one mask saved as a picture of equal channels
    shares = ", ".join(f"{share:.1%}" for share in flat.mean(axis=1))
    found = f"{len(block)} channels, each a mask of one value ({shares} of the voxels)"
    if flat.sum(axis=0).max() <= 1:
        return "label-one-hot", f"{found}, at most one of them not 0 in a voxel"
    order = flat[np.argsort(-flat.sum(axis=1), kind="stable")]
    nested = all(
        not (small & ~large).any() or not (small & large).any()
        for n, large in enumerate(order)
        for small in order[n + 1 :]
    )
    how = "lie within one another" if nested else "overlap"
    return "label-regions", f"{found}, that {how}"


def _values(facts: CheckedLabel, finding: Any) -> Iterator[Finding]:
    """What the values alone tell."""
    whole = int(facts.sizes.sum()) == facts.size
    if whole and len(facts.ids) > 1 and int(facts.ids[0]) >= _SIGNED:
        found = f"no value is below {facts.ids[0]}, and none is 0"
        yield finding("label-offset", found)
    if len(facts.ids) == 2 and facts.ids.tolist() == [1, 255] and facts.apart:
        ones = int(np.count_nonzero(facts.tops == 1))
        full = int(np.count_nonzero(facts.tops == 255))
        found = f"{ones} sections hold 0 and 1, {full} hold 0 and 255"
        yield finding("mixed-binary", found)


def _scattered(block: Array, finding: Any) -> Iterator[Finding]:
    """Ids that lie about in many specks."""
    import cc3d

    ids = len(np.unique(block[block != 0]))
    pieces = cc3d.connected_components(np.array(block), connectivity=26)
    sizes = np.bincount(pieces.ravel())[1:]
    specks = int(np.count_nonzero(sizes < _SPECK))
    held = int(sizes[sizes < _SPECK].sum())
    if held < _SPECKS * sizes.sum():  # crumbs of lines that are drawn thin
        return
    if ids and specks >= max(50, _SCATTERED * ids) and 2 * specks > len(sizes):
        found = f"{ids} ids lie in {len(sizes)} pieces, {specks} of fewer than {_SPECK} voxels"
        yield finding("ids-scattered", f"in a block of {block.size} voxels {found}")


def _by_chance(block: Array) -> str | None:
    """Whether labelled voxels lie as noise does: each by chance, or most of them in specks.

    For each direction to a neighbour, the agreement of two voxels beyond that of two voxels
    anywhere (Cohen's kappa). Noise has none along any; outlines of one voxel have some along one.
    """
    labelled = float(np.mean(block != 0))
    if not _LABELLED <= labelled <= 1 - _LABELLED:
        return None
    shares = np.unique(block, return_counts=True)[1] / block.size
    chance = float(np.sum(shares**2))
    pairs = [
        (block[:, :, 1:], block[:, :, :-1]),
        (block[:, 1:], block[:, :-1]),
        (block[:, 1:, 1:], block[:, :-1, :-1]),
        (block[:, 1:, :-1], block[:, :-1, 1:]),
        (block[1:], block[:-1]),
    ]
    agree = [float(np.mean(one == other)) for one, other in pairs if one.size]
    if max(abs(each - chance) for each in agree) < _BY_CHANCE * (1 - chance):
        return f"{labelled:.0%} of a block are labelled, and its voxels know nothing of each other"
    import cc3d

    sizes = np.bincount(cc3d.connected_components(np.array(block), connectivity=26).ravel())[1:]
    specks = int(sizes[sizes < _SPECK].sum())
    if specks > _IN_SPECKS * sizes.sum() and np.count_nonzero(sizes < _SPECK) >= _FEWEST:
        return (
            f"{specks / sizes.sum():.0%} of what is labelled in a block lies in specks of fewer "
            f"than {_SPECK} voxels"
        )
    return None


def _outlines(block: Array, finding: Any) -> Iterator[Finding]:
    """Objects of which the border alone is labelled, a voxel or two wide, and not what it holds."""
    import cc3d
    from scipy import ndimage

    rings = pieces = 0
    for plane in block[:: max(1, len(block) // _PLANES)]:
        objects = cc3d.connected_components(np.array(plane), connectivity=8)
        at_faces = set(np.unique(_faces_of(objects[None])).tolist())
        for number, place in enumerate(_boxes(objects), 1):
            piece = objects[place] == number
            size = int(np.count_nonzero(piece))
            if size < _LINE or number in at_faces:
                continue
            pieces += 1
            inside = ndimage.binary_fill_holes(piece) & ~piece & (plane[place] == 0)
            if 2 * np.count_nonzero(inside) >= size and not ndimage.binary_erosion(piece).any():
                rings += ndimage.label(inside)[1] <= _HOLES
    if rings >= _SEVERAL and rings > pieces / 2:
        found = (
            f"{rings} of {pieces} objects in some planes of a block are outlines: lines of a voxel "
            "or two, around what is 0"
        )
        yield finding("label-outlines", found)


def _by_section(block: Array, finding: Any) -> Iterator[Finding]:
    """Ids that change from each section to the next: every section was labelled by itself.

    Of the development data at most 8% of the voxels that are labelled in two sections one above
    the other have two ids, but for the supervoxels of 06, which are made section by section: all.
    """
    above, below = block[:-1], block[1:]
    both = (above != 0) & (below != 0)
    pairs = np.count_nonzero(both, axis=(1, 2))
    told = pairs >= _FEWEST
    if np.count_nonzero(told) < _SEVERAL:
        return
    apart = np.count_nonzero(both & (above != below), axis=(1, 2))[told] / pairs[told]
    if np.median(apart) > _ANEW:
        found = (
            f"{np.median(apart):.0%} of what is labelled in two sections one above the other has "
            "two ids: each section seems to be labelled by itself"
        )
        yield finding("ids-by-section", found)


def _counted(facts: CheckedLabel, most: int) -> bool:
    """Whether the values are few and 1, 2, 3, ...: a thin class between two others is no grey."""
    return len(facts.ids) <= most and int(facts.ids[-1]) == len(facts.ids)


def _two_valued(block: Array) -> bool:
    """Whether a third of the voxels lie at the two ends of the values, as in a soft mask.

    At the lower end they are equal, since a smoothed mask is even where it is empty; at the
    upper one nearly so, since a small object does not keep its full value. Of the development
    data no image has more than 5% there, and all masks smoothed by up to two voxels have, but for
    those of membranes and of a few pixels.
    """
    low, high = float(block.min()), float(block.max())
    empty = np.mean(block == low)
    dark = np.mean(block <= low + 0.05 * (high - low))
    bright = np.mean(block >= high - 0.1 * (high - low))
    even = min(empty, np.mean(block == high)) >= 0.01  # 0 and 255 with little in between
    return bool(dark + bright >= 0.35 and bright >= 0.01 and (even or empty >= 0.05))


def _label_for_image(
    case: Case, image: Volume, block: Array, level: Level | None
) -> Iterator[Finding]:
    """What is said of an image in which labels lie."""
    if _labels_in(block):
        values = np.unique(block)
        found = (
            f"what is given as an image holds {len(values)} whole numbers from {values[0]:g} to "
            f"{values[-1]:g} in a block, in even pieces with hard borders: it looks like a label"
        )
        path = Path(image.name)
        yield Finding("label-without-image", found, case=case.name, path=path, level=level)


def _labels_in(block: Array) -> bool:
    """Whether a block holds ids or classes rather than grey values.

    Noise makes specks, blur makes values between others, and a dark image without either
    lies in terraces, each value within the one below it. Of the development data all 36
    labels are told from all 31 images, and from these where photons are few or grey values
    down to 4 are left; classes that lie within each other like terraces are missed.
    """
    texture = Texture.of(block)
    if texture.borders < _FEWEST or not texture.like_labels or not _whole(block):
        return False
    steps = np.unique(block, return_inverse=True)[1].reshape(block.shape)
    if _terraced(steps):
        return False
    import cc3d

    pieces = cc3d.connected_components(steps.astype(np.uint32) + 1, connectivity=6)
    sizes = np.bincount(pieces.ravel())[1:]
    return bool(sizes[sizes < _SPECK].sum() <= _SPECKLED * np.count_nonzero(block))


def _whole(block: Array) -> bool:
    """Whether all values are whole numbers from 0 up."""
    return bool((block >= 0).all() and (block == np.round(block)).all())


def _terraced(steps: Array) -> bool:
    """Whether the third value and those above it mostly border on the one just below."""
    borders = ones = 0
    for axis in (1, 2):
        lines = np.moveaxis(steps, axis, -1)
        high = np.maximum(lines[..., 1:], lines[..., :-1])
        apart = np.where(high >= 2, np.abs(np.diff(lines)), 0)
        borders += int(np.count_nonzero(apart))
        ones += int(np.count_nonzero(apart == 1))
    return ones > _TERRACED * borders


def _swapped(image: Array, label: Array) -> bool:
    """Whether one is a label and the other an image, the wrong way round."""
    mine, theirs = Texture.of(image), Texture.of(label)
    return (
        mine.borders >= _FEWEST
        and mine.like_labels
        and theirs.between > _BETWEEN
        and theirs.busy > _BUSY
        and _whole(image)
    )


def _busiest(volume: VolumeLike) -> tuple[Box, Array]:
    """The first block, from the middle on, that has borders."""
    for share in middle_first():
        box = _box(volume, share)
        block = volume.read(box)[0]
        if Texture.of(block).borders >= _FEWEST:
            break
    return box, block


def _box(volume: VolumeLike, share: tuple[float, float, float]) -> Box:
    shape = volume.shape[1:]
    size = three(min(n, most) for n, most in zip(shape, _BLOCK, strict=True))
    return Box.at(three(int(s * (n - m)) for s, n, m in zip(share, shape, size, strict=True)), size)
