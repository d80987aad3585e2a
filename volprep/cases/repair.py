"""What can be put right about labels without loss, on request and while they are read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.cases.derived import DerivedVolume
from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.sources import Array, ChunkedVolume, Index, Layout, Volume

__all__ = ["NO_RULES", "ColourLabels", "LabelRules", "RenumberedLabels", "ValueLabels"]

Connectivity = Literal[6, 18, 26]

#: What is held at once of a label volume whose objects are looked for, as 64-bit ids.
SLAB_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class LabelRules:
    """How the values of a label file become ids; in this order.

    Attributes
    ----------
    colours : bool
        Each colour of a picture is an id of its own (red * 65536 + green * 256 + blue in
        8 bits; black is 0), the same in every file.
    threshold : float or None
        1 at and above it, else 0.
    background : int or None
        The value of the background. It becomes 0, and what was 0 becomes this value, so that
        nothing is lost.
    connected_components : {6, 18, 26} or None
        Each connected piece of one value becomes an object of its own: neighbours share a
        face, an edge too, or a corner too.
    min_size : int or None
        Objects of fewer voxels become 0.
    relabel : bool
        Ids become 1, 2, 3, ... in their order.
    """

    colours: bool = False
    threshold: float | None = None
    background: int | None = None
    connected_components: Connectivity | None = None
    min_size: int | None = None
    relabel: bool = False

    @property
    def renumbers(self) -> bool:
        """Whether an id depends on the volume as a whole."""
        return self.connected_components is not None or bool(self.min_size) or self.relabel

    @property
    def moves_zero(self) -> bool:
        """Whether a 0 in the file may be something else than a 0."""
        return self.threshold is not None or self.background is not None

    def __bool__(self) -> bool:
        return self != NO_RULES

    def __str__(self) -> str:
        parts = [
            f"{name} {value}" if value is not True else name
            for name, value in self.to_dict().items()
        ]
        return ", ".join(parts).replace("_", " ")

    def to_dict(self) -> dict[str, Any]:
        """The rules that are given, as plain values."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value not in (None, False)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelRules:
        """The inverse of `to_dict`."""
        return cls(**values)


NO_RULES = LabelRules()


class ColourLabels(DerivedVolume):
    """The colours of a picture as ids: red, green and blue side by side in one number.

    Parameters
    ----------
    picture : Volume
        Three channels of 8 or 16 bits; a fourth is transparency, which is left out.

    Raises
    ------
    SourceError
        If it has other channels, or is not of unsigned integers of 8 or 16 bits.
    """

    def __init__(self, picture: Volume) -> None:
        bits = 8 * picture.dtype.itemsize
        if picture.shape[0] not in (3, 4) or picture.dtype.kind != "u" or bits > 16:
            raise SourceError(
                picture.name,
                f"has {picture.shape[0]} channels of {picture.dtype}, which are no colours",
                "leave out `label_colours`, or give pictures of red, green and blue",
            )
        super().__init__([picture], 1, np.uint32 if bits == 8 else np.uint64)
        self._bits = bits

    def _made(self, blocks: Sequence[Array], box: Box) -> Array:
        red, green, blue = blocks[0][:3].astype(self.dtype)
        ids: Array = (red << (2 * self._bits)) | (green << self._bits) | blue
        return ids[None]


class ValueLabels(DerivedVolume):
    """Labels whose values are changed one by one: a threshold, another background, ignored ones.

    Parameters
    ----------
    values : Volume
        One channel, as in the file.
    rules : LabelRules
    ignore : sequence of int
        Values, as in the file, that become 0.
    """

    def __init__(self, values: Volume, rules: LabelRules, ignore: Sequence[int] = ()) -> None:
        if values.shape[0] != 1:
            raise SourceError(
                values.name, f"has {values.shape[0]} channels", "give labels of one channel"
            )
        dtype = values.dtype if rules.threshold is None else np.dtype(np.uint8)
        super().__init__([values], 1, _holding(dtype, rules.background))
        self._rules = rules
        self._ignore = ignored(ignore, values.dtype)

    def _made(self, blocks: Sequence[Array], box: Box) -> Array:
        rules, values = self._rules, blocks[0]
        ids = values if rules.threshold is None else values >= rules.threshold
        ids = ids.astype(self.dtype, copy=False)
        if rules.background:
            background = ids == rules.background
            ids = np.where(background, 0, np.where(ids == 0, rules.background, ids))
            ids = ids.astype(self.dtype, copy=False)
        if len(self._ignore):
            left_out = np.isin(values, self._ignore)
            ids = np.where(left_out, self.dtype.type(0), ids) if left_out.any() else ids
        return ids


def ignored(values: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """The values that a dtype can hold; the others cannot occur."""
    if dtype.kind == "f":
        return np.array(values, dtype)
    limits = np.iinfo(dtype)
    return np.array([v for v in values if limits.min <= v <= limits.max], dtype)


@dataclass(frozen=True, slots=True)
class Renumbering:
    """What became of the ids of a volume.

    Attributes
    ----------
    objects : int
        Before small ones were left out.
    small : int
        Those that were left out.
    ids : ndarray of uint64
        The ids as they were, ascending; empty where they are connected components.
    new : ndarray of uint32 or uint64
        The id that each of them has now; of components, by their number over all slabs,
        with 0 for the background first.
    firsts : tuple of int
        Of components: how many there are in the slabs before each slab.
    """

    objects: int
    small: int
    ids: npt.NDArray[np.uint64]
    new: npt.NDArray[Any]
    firsts: tuple[int, ...] = field(default=())


class RenumberedLabels(ChunkedVolume):
    """Labels whose ids depend on the whole volume: components, without small ones, renumbered.

    The volume is walked through once, slab by slab, when it is first read; a table of ids is
    kept, and each slab is renumbered when a box touches it. No more than a slab is ever held.

    Parameters
    ----------
    labels : Volume
        One channel of unsigned integers.
    rules : LabelRules

    Notes
    -----
    Components are found by cc3d in each slab and joined over the faces between slabs, so that
    they are those of the whole volume. They are numbered in the order of slabs.
    """

    def __init__(self, labels: Volume, rules: LabelRules) -> None:
        wide = rules.connected_components is not None or (
            rules.relabel and labels.dtype.itemsize > 4
        )
        super().__init__(
            labels.path,
            Layout("CZYX", labels.shape),
            np.uint32 if wide else labels.dtype,
            block=(1, _planes(labels), *labels.shape[2:]),
            key=labels.key,
            spacing=labels.spacing,
            notes=labels.notes,
        )
        self._labels, self._rules = labels, rules
        self._flat = labels.ndim_spatial == 2

    @property
    def ndim_spatial(self) -> int:
        """2 where there is one plane only, else 3."""
        return 2 if self._flat else 3

    @property
    def renumbering(self) -> Renumbering:
        """What becomes of the ids; the volume is read for it once."""
        found: Renumbering = self._opened()
        return found

    def close(self) -> None:
        """Let go of the open file."""
        super().close()
        self._labels.close()

    def _open(self) -> Renumbering:
        # Opened again and again by name; what was found of the same file is kept.
        state = os.stat(self._labels.path)
        return _renumbering(_Same(self._labels, self._rules, state.st_mtime_ns, state.st_size))

    def _decode(self, index: Index, out: Array | None) -> Array:
        found, depth = self.renumbering, self.chunks[0]
        number = index[1]
        box = Box((number * depth, 0, 0), ((number + 1) * depth, *self.shape[2:]))
        ids = self._labels.read(box.clip(self.shape))[0]
        return _renumbered(ids, self._rules, found, number, self.dtype)[None]


def _planes(labels: Volume) -> int:
    """How many planes a slab has: whole layers of chunks, where they fit."""
    _, depth, height, width = labels.shape
    planes, layer = max(1, SLAB_BYTES // (8 * height * width)), labels.chunks[0]
    return min(depth, max(planes // layer * layer, min(planes, layer)))


def _renumbered(
    ids: Array, rules: LabelRules, found: Renumbering, slab: int, dtype: np.dtype[Any]
) -> Array:
    import fastremap

    if rules.connected_components is None:
        wide = np.promote_types(ids.dtype, dtype)
        changed: Array = fastremap.remap_from_array_kv(
            ids.astype(wide).reshape(-1),
            found.ids.astype(wide),
            found.new.astype(wide),
            preserve_missing_labels=True,  # the background
        )
        return changed.astype(dtype, copy=False).reshape(ids.shape)
    pieces = _components(ids, rules.connected_components)
    places = pieces.astype(np.int64) + found.firsts[slab]
    places[pieces == 0] = 0
    return found.new[places].astype(dtype, copy=False)


def _components(ids: Array, connectivity: Connectivity) -> Array:
    import cc3d

    own = np.require(ids, requirements=["C", "W"])  # cc3d takes no read-only memory
    pieces: Array = cc3d.connected_components(own, connectivity=connectivity)
    return pieces


@dataclass(frozen=True, slots=True)
class _Same:
    """A label volume that is the same as another if it is made of the same, unchanged, file."""

    labels: Volume = field(compare=False)
    rules: LabelRules
    changed: int
    size: int
    made: str = ""

    def __post_init__(self) -> None:
        parts, volume = [], self.labels
        while isinstance(volume, DerivedVolume):
            parts.append(f"{type(volume).__name__}{vars(volume).get('_ignore')}")
            volume = volume.parts[0]
        parts.append(f"{volume.name} {volume.axes} {volume.shape} {volume.dtype}")
        object.__setattr__(self, "made", " of ".join(parts))


@lru_cache(maxsize=64)
def _renumbering(same: _Same) -> Renumbering:
    labels, rules = same.labels, same.rules
    planes = _planes(labels)
    if rules.connected_components is None:
        return _of_ids(labels, rules, planes)
    return _of_components(labels, rules, planes)


def _of_ids(labels: Volume, rules: LabelRules, planes: int) -> Renumbering:
    import fastremap

    counts: dict[int, int] = {}
    for _, block in labels.slabs(planes):
        found, number = fastremap.unique(np.ascontiguousarray(block), return_counts=True)
        for label, count in zip(found.tolist(), number.tolist(), strict=True):
            counts[label] = counts.get(label, 0) + count
    counts.pop(0, None)
    ids = np.array(sorted(counts), np.uint64)
    kept = np.array([counts[int(i)] >= (rules.min_size or 0) for i in ids], bool)
    new = np.zeros(len(ids), np.uint64)
    new[kept] = np.arange(1, kept.sum() + 1) if rules.relabel else ids[kept]
    return Renumbering(len(ids), int((~kept).sum()), ids, new)


def _of_components(labels: Volume, rules: LabelRules, planes: int) -> Renumbering:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    connectivity: Connectivity = rules.connected_components or 26
    firsts, sizes = [0], [np.zeros(1, np.int64)]
    pairs: list[npt.NDArray[np.int64]] = [np.empty((2, 0), np.int64)]
    last: tuple[Array, Array] | None = None
    for _, block in labels.slabs(planes):
        ids = block[0]
        pieces = _components(ids, connectivity).astype(np.int64)
        sizes.append(np.bincount(pieces.reshape(-1))[1:])
        pieces[pieces > 0] += firsts[-1]
        if last is not None:
            pairs.append(_touching(last, (ids[0], pieces[0]), connectivity))
        last = ids[-1].copy(), pieces[-1].copy()
        firsts.append(firsts[-1] + len(sizes[-1]))
    every, joined = np.concatenate(sizes), np.concatenate(pairs, axis=1)
    edges: Any = (np.ones(joined.shape[1], np.int8), (joined[0], joined[1]))
    graph = coo_array(edges, shape=(len(every), len(every)))
    count, of = connected_components(graph, directed=False)
    total = np.bincount(of, every, count).astype(np.int64)  # exact: below 2**53
    # In the order of their first piece; 0 stands for the background and is joined to nothing.
    _, first = np.unique(of, return_index=True)
    kept = total >= max(1, rules.min_size or 0)
    kept[of[0]] = False
    number = np.zeros(count, np.uint32)
    order = np.argsort(first)
    number[order] = np.cumsum(kept[order]) * kept[order]
    small = count - 1 - int(kept.sum())
    return Renumbering(count - 1, small, np.empty(0, np.uint64), number[of], tuple(firsts))


def _touching(
    above: tuple[Array, Array], below: tuple[Array, Array], connectivity: int
) -> npt.NDArray[np.int64]:
    """The pieces of two planes, one after the other, that are neighbours of the same value."""
    found = [np.empty((2, 0), np.int64)]
    for dy, dx in _steps(connectivity):
        upper, lower = _shifted(dy, dx)
        ids, pieces = above[0][upper], above[1][upper]
        same = (ids == below[0][lower]) & (ids != 0)
        if same.any():
            both = np.stack([pieces[same], below[1][lower][same]])
            found.append(np.unique(both, axis=1))
    return np.unique(np.concatenate(found, axis=1), axis=1)


def _steps(connectivity: int) -> Iterator[tuple[int, int]]:
    """From a voxel to its neighbours in the next plane, in y and x."""
    reach = {6: 0, 18: 1, 26: 2}[connectivity]
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if abs(dy) + abs(dx) <= reach:
                yield dy, dx


def _shifted(dy: int, dx: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where two planes overlap if the second is moved by a step."""
    upper = tuple(slice(max(0, -d), -d if d > 0 else None) for d in (dy, dx))
    lower = tuple(slice(max(0, d), d if d < 0 else None) for d in (dy, dx))
    return (upper[0], upper[1]), (lower[0], lower[1])


def _holding(dtype: np.dtype[Any], value: int | None) -> np.dtype[Any]:
    """A dtype that holds a value, too."""
    return dtype if value is None else np.promote_types(dtype, np.min_scalar_type(value))
