"""The facts about a data set, as they are saved: shapes, spacings, intensities, labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from volprep.geometry import Shape3, Spacing3

__all__ = [
    "PERCENTILES",
    "CaseFacts",
    "Distribution",
    "Fingerprint",
    "Histogram",
    "LabelFacts",
    "Region",
    "Statistics",
    "Weighting",
]

#: Which voxels: all of them, or those with a label above 0.
Region = Literal["all", "foreground"]
#: How images are pooled: each voxel weighs the same, or each image.
Weighting = Literal["voxel", "image"]

PERCENTILES = (0.01, 0.5, 1.0, 5.0, 50.0, 95.0, 99.0, 99.5, 99.99)

#: Larger whole numbers are written as text, since many JSON readers would round them.
_LARGEST_NUMBER = 2**53


@dataclass(frozen=True)
class Statistics:
    """Intensities of one channel over some voxels.

    Attributes
    ----------
    count : int
        Voxels; those that are NaN or infinite are not among them.
    mean, std, minimum, maximum : float
        0 where `count` is 0. The standard deviation is that of the population.
    percentiles : mapping of str to float
        By the percentile as text, ``"0.5"``: numpy's linear interpolation where
        voxels are pooled; where images are, the smallest value that reaches the share.
    """

    count: int
    mean: float
    std: float
    minimum: float
    maximum: float
    percentiles: Mapping[str, float]

    def percentile(self, q: float) -> float:
        """The value of a percentile that was measured.

        Raises
        ------
        KeyError
            If it was not.
        """
        return self.percentiles[f"{q:g}"]


@dataclass(frozen=True)
class Histogram:
    """How often intensities between `start` and `stop` occur, in bins of one width."""

    start: float
    stop: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Distribution:
    """How the intensities of some voxels are spread, in a few hundred ranges of few voxels each.

    Attributes
    ----------
    first, last : tuple of float
        Ends of each range, both inclusive, ascending; equal where a range is one value.
    counts : tuple of int
        Voxels of each. No range of more than one value holds over 0.5% of them.
    """

    first: tuple[float, ...]
    last: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, first: npt.ArrayLike, last: npt.ArrayLike, counts: npt.ArrayLike) -> Self:
        """Join ascending ranges to a few hundred.

        Parameters
        ----------
        first, last : array of float, shape (n,)
            Ends of the ranges.
        counts : array of int, shape (n,)
            Voxels of each, all above 0.
        """
        starts, ends, often = np.asarray(first), np.asarray(last), np.asarray(counts)
        if not often.size:
            return cls((), (), ())
        most = often.sum() * _FEW
        before = np.cumsum(often) - often
        # A range of many voxels stays alone, so that nothing is guessed about where they lie.
        alone = often > most / 2
        group = before // max(most / 2, 1)
        opens = np.ones(often.size, np.bool_)
        opens[1:] = (group[1:] != group[:-1]) | alone[1:] | alone[:-1]
        (at,) = np.nonzero(opens)
        stops = np.append(at[1:], often.size) - 1
        return cls(
            tuple(starts[at].astype(np.float64).tolist()),
            tuple(ends[stops].astype(np.float64).tolist()),
            tuple(np.add.reduceat(often, at).tolist()),
        )

    def outside(self, low: float, high: float) -> float:
        """The share of the voxels below `low` or above `high`, 0 to 1; 0 where there is none.

        Within a range voxels are taken as spread evenly, so that the share is known to 0.5%,
        and exactly where no range is cut.
        """
        first, last = np.array(self.first), np.array(self.last)
        if not first.size:
            return 0.0
        width = np.where(last > first, last - first, 1.0)
        with np.errstate(over="ignore"):  # a range may be as narrow as numbers are
            below = np.where(last < low, 1.0, np.clip((low - first) / width, 0, 1))
            above = np.where(first > high, 1.0, np.clip((last - high) / width, 0, 1))
        below[(first == last) & (first >= low)] = 0
        above[(first == last) & (first <= high)] = 0
        counts = np.array(self.counts)
        return float((np.minimum(below + above, 1) * counts).sum() / counts.sum())


#: The share of the voxels in one range of a `Distribution`.
_FEW = 0.005


@dataclass(frozen=True)
class LabelFacts:
    """What a label volume holds; ids above 0 are objects or classes.

    Attributes
    ----------
    dtype : str
        Of the label volume.
    n_ids : int
        How many ids there are.
    smallest_id, largest_id : int or None
        None where there are none.
    voxels : mapping of int to int, or None
        Voxels of each id; None where there are more than `MOST_LISTED` of them.
    foreground : float
        Share of the voxels with an id.
    background, voxel_count : int
        Voxels without one, and all of them.
    sizes : mapping of str to float
        Percentiles 0, 5, 50, 95, 100 of the voxels of an id, by their text.
    touching : int
        Ids that share a face with another id.
    """

    MOST_LISTED = 256

    dtype: str
    n_ids: int
    smallest_id: int | None
    largest_id: int | None
    voxels: Mapping[int, int] | None
    foreground: float
    background: int
    voxel_count: int
    sizes: Mapping[str, float]
    touching: int


@dataclass(frozen=True)
class CaseFacts:
    """One image, and its labels where there are any.

    Attributes
    ----------
    name : str
        Of the case.
    shape : tuple of int
        (C, Z, Y, X) of the whole volume.
    dtype : str
        Of the image.
    spacing : tuple of float or None
        (Z, Y, X) in micrometres.
    box : tuple of two (int, int, int), or None
        Start and stop of the block that was measured, None for all of it.
    everywhere, foreground : tuple of Statistics, or None
        One for each channel; None where not measured, or without labels.
    labels : LabelFacts or None
        None without labels.
    """

    name: str
    shape: tuple[int, int, int, int]
    dtype: str
    spacing: Spacing3 | None
    box: tuple[Shape3, Shape3] | None = None
    everywhere: tuple[Statistics, ...] | None = None
    foreground: tuple[Statistics, ...] | None = None
    labels: LabelFacts | None = None


@dataclass(frozen=True)
class Fingerprint:
    """The facts about a data set.

    Attributes
    ----------
    cases : tuple of CaseFacts
        In the order of the cases.
    pooled : mapping
        ``pooled["voxel"]["foreground"][channel]`` is a Statistics; empty where only
        headers were read, without ``foreground`` where no case has labels.
    histograms : tuple of Histogram
        All voxels, one for each channel, for drawing.
    labelled : tuple of Distribution
        The voxels with a label above 0, one for each channel; empty without labels.
    sizes : mapping of str to float
        Percentiles of the voxels of an id, over all cases.
    """

    cases: tuple[CaseFacts, ...]
    pooled: Mapping[Weighting, Mapping[Region, tuple[Statistics, ...]]] = field(
        default_factory=dict
    )
    histograms: tuple[Histogram, ...] = ()
    labelled: tuple[Distribution, ...] = ()
    sizes: Mapping[str, float] = field(default_factory=dict)

    @property
    def n_channels(self) -> int:
        """Channels of every case."""
        return self.cases[0].shape[0]

    @property
    def median_shape(self) -> Shape3:
        """(Z, Y, X), axis by axis, rounded down."""
        z, y, x = (
            int(np.median(axis)) for axis in zip(*(c.shape[1:] for c in self.cases), strict=True)
        )
        return z, y, x

    @property
    def median_spacing(self) -> Spacing3 | None:
        """(Z, Y, X) in micrometres over the cases that have one; None where none has."""
        known = [c.spacing for c in self.cases if c.spacing is not None]
        if not known:
            return None
        z, y, x = (float(np.median(axis)) for axis in zip(*known, strict=True))
        return z, y, x

    @property
    def anisotropy(self) -> float | None:
        """The coarsest median spacing over the finest; of 2D data, in the plane."""
        spacing = self.median_spacing
        if spacing is None:
            return None
        used = spacing[1:] if self.is_2d else spacing
        return max(used) / min(used)

    @property
    def is_2d(self) -> bool:
        """Whether every case is one plane."""
        return all(c.shape[1] == 1 for c in self.cases)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Of the images, the most frequent first."""
        return tuple(name for name, _ in Counter(c.dtype for c in self.cases).most_common())

    @property
    def has_labels(self) -> bool:
        """Whether a case has labels that were measured."""
        return any(c.labels is not None for c in self.cases)

    @property
    def n_objects(self) -> int:
        """Ids of all cases, counted for each case."""
        return sum(c.labels.n_ids for c in self.cases if c.labels)

    @property
    def class_voxels(self) -> dict[int, int] | None:
        """Voxels of each id over all cases; None where a case has too many to list them."""
        total: Counter[int] = Counter()
        for case in self.cases:
            if case.labels is None:
                continue
            if case.labels.voxels is None:
                return None
            total.update(case.labels.voxels)
        return dict(sorted(total.items()))

    @property
    def background_voxels(self) -> int:
        """Voxels without an id, over all cases with labels."""
        return sum(c.labels.background for c in self.cases if c.labels)

    @property
    def background(self) -> float:
        """Share of the voxels of all labels without an id; 0 without labels."""
        labels = [c.labels for c in self.cases if c.labels]
        return self.background_voxels / max(1, sum(label.voxel_count for label in labels))

    def statistics(
        self, region: Region = "foreground", weighting: Weighting = "voxel"
    ) -> tuple[Statistics, ...]:
        """Pooled statistics of each channel; of all voxels where nothing is labelled.

        Raises
        ------
        ValueError
            If only headers were read.
        """
        if not self.pooled:
            raise ValueError("this fingerprint was made from headers only: it has no statistics")
        regions = self.pooled[weighting]
        found = regions.get(region)
        if found is None or not any(s.count for s in found):
            found = regions["all"]
        return found

    def to_dict(self) -> dict[str, Any]:
        """Numbers, text, lists and mappings only, for JSON; with the derived facts beside them."""
        return {
            "median_shape": list(self.median_shape),
            "median_spacing": _listed(self.median_spacing),
            "anisotropy": self.anisotropy,
            "is_2d": self.is_2d,
            "n_channels": self.n_channels,
            "dtypes": list(self.dtypes),
            "n_objects": self.n_objects,
            "sizes": dict(self.sizes),
            "pooled": {
                weighting: {
                    region: [vars(s) | {"percentiles": dict(s.percentiles)} for s in channels]
                    for region, channels in regions.items()
                }
                for weighting, regions in self.pooled.items()
            },
            "histograms": [vars(h) | {"counts": list(h.counts)} for h in self.histograms],
            "labelled": [{k: list(v) for k, v in vars(d).items()} for d in self.labelled],
            "cases": [_case_dict(case) for case in self.cases],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The fingerprint that `to_dict` was called on."""
        return cls(
            cases=tuple(_case(case) for case in data["cases"]),
            pooled={
                weighting: {
                    region: tuple(Statistics(**s) for s in channels)
                    for region, channels in regions.items()
                }
                for weighting, regions in data["pooled"].items()
            },
            histograms=tuple(
                Histogram(h["start"], h["stop"], tuple(h["counts"])) for h in data["histograms"]
            ),
            labelled=tuple(
                Distribution(tuple(d["first"]), tuple(d["last"]), tuple(d["counts"]))
                for d in data["labelled"]
            ),
            sizes=data["sizes"],
        )


def _case_dict(case: CaseFacts) -> dict[str, Any]:
    return {
        "name": case.name,
        "shape": list(case.shape),
        "dtype": case.dtype,
        "spacing": _listed(case.spacing),
        "box": None if case.box is None else [list(corner) for corner in case.box],
        "everywhere": _statistics_dicts(case.everywhere),
        "foreground": _statistics_dicts(case.foreground),
        "labels": None if case.labels is None else _labels_dict(case.labels),
    }


def _case(data: Mapping[str, Any]) -> CaseFacts:
    box = data["box"]
    return CaseFacts(
        name=data["name"],
        shape=tuple(data["shape"]),
        dtype=data["dtype"],
        spacing=None if data["spacing"] is None else tuple(data["spacing"]),
        box=None if box is None else (tuple(box[0]), tuple(box[1])),
        everywhere=_statistics(data["everywhere"]),
        foreground=_statistics(data["foreground"]),
        labels=None if data["labels"] is None else _labels(data["labels"]),
    )


def _statistics_dicts(channels: Sequence[Statistics] | None) -> list[dict[str, Any]] | None:
    if channels is None:
        return None
    return [vars(s) | {"percentiles": dict(s.percentiles)} for s in channels]


def _statistics(channels: Sequence[Mapping[str, Any]] | None) -> tuple[Statistics, ...] | None:
    return None if channels is None else tuple(Statistics(**s) for s in channels)


def _labels_dict(labels: LabelFacts) -> dict[str, Any]:
    return vars(labels) | {
        "smallest_id": _safe(labels.smallest_id),
        "largest_id": _safe(labels.largest_id),
        "voxels": None if labels.voxels is None else {str(k): v for k, v in labels.voxels.items()},
        "sizes": dict(labels.sizes),
    }


def _labels(data: Mapping[str, Any]) -> LabelFacts:
    def number(value: Any) -> int | None:
        return None if value is None else int(value)

    voxels = data["voxels"]
    return LabelFacts(**{
        **data,
        "smallest_id": number(data["smallest_id"]),
        "largest_id": number(data["largest_id"]),
        "voxels": None if voxels is None else {int(k): v for k, v in voxels.items()},
    })  # fmt: skip


def _safe(number: int | None) -> int | str | None:
    return str(number) if number is not None and number > _LARGEST_NUMBER else number


def _listed(values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else list(values)
