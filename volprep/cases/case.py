"""The nouns: a reference to a file, a case, the cases of a data set."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, overload

from volprep.cases.channels import ChannelFiles
from volprep.cases.points import PointLabels, PointRules, is_points, read_points
from volprep.cases.regions import Region, RegionVolume
from volprep.cases.repair import (
    NO_RULES,
    ColourLabels,
    LabelRules,
    RenumberedLabels,
    ValueLabels,
)
from volprep.cases.valid import ValidMask
from volprep.errors import ConfigError, SourceError, did_you_mean
from volprep.findings import Finding
from volprep.geometry import Box, Spacing3, three
from volprep.places import path_of
from volprep.sources import PlaneAxis, Volume, aligned, open_labels, open_volume, sliced

__all__ = ["Case", "Cases", "FileRef", "Fold", "Geometry", "LabelKind"]

LabelKind = Literal["instances", "classes"]
NO_POINTS = PointRules()
Geometry = Literal["header", "stored"]


@dataclass(frozen=True, slots=True)
class FileRef:
    """One array in one file.

    Attributes
    ----------
    path : pathlib.Path
        A file, a Zarr store, or a folder of slices.
    key : str or None
        The dataset inside it; None lets the reader find the one it expects.
    axes : str or None
        What its axes mean (``ZYX``, ``CZYX``, ...); None takes the file's word.
    allow_external : bool
        Whether other files may be read that the file links to.
    time : int or None
        The time point, of a file that holds several.
    """

    path: Path
    key: str | None = None
    axes: str | None = None
    allow_external: bool = False
    time: int | None = None

    @property
    def may_have_holes(self) -> bool:
        """Whether parts of it may be missing: tiles."""
        return self.path.suffix.lower() == ".json"

    @property
    def is_points(self) -> bool:
        """Whether it holds points, not voxels."""
        return is_points(self.path)

    def open(self) -> Volume:
        """Open the array as an image, without reading its voxels."""
        return open_volume(
            self.path,
            key=self.key,
            axes=self.axes,
            allow_external=self.allow_external,
            time=self.time,
        )

    def open_labels(self) -> Volume:
        """Open the array as integer labels, without reading its voxels."""
        try:
            return open_labels(
                self.path,
                key=self.key,
                axes=self.axes,
                allow_external=self.allow_external,
                time=self.time,
            )
        except SourceError as error:  # of a label, so the option that helps is the label's
            wanted = error.wanted and error.wanted.replace("`axes:", "`label_axes:")
            raise SourceError(error.path, error.found, wanted) from error

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON and YAML."""
        values: dict[str, Any] = {"path": str(self.path), "key": self.key, "axes": self.axes}
        external = {"allow_external": True} if self.allow_external else {}
        return {**values, **external, **({} if self.time is None else {"time": self.time})}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FileRef:
        """The inverse of `to_dict`."""
        external = bool(values.get("allow_external", False))
        return cls(
            path_of(values["path"]), values.get("key"), values.get("axes"), external,
            values.get("time"),
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{self.path}::{self.key}" if self.key else str(self.path)


@dataclass(frozen=True, slots=True)
class Case:
    """One image with what belongs to it.

    Attributes
    ----------
    name : str
        Unique among the cases of a data set.
    images : tuple of FileRef
        One file, or several that are the channels of one image.
    label : FileRef or None
        Integer ids or classes, None where the case is not annotated.
    mask : FileRef or None
        Where the label is valid (non-zero), None where all of it is.
    skeletons : pathlib.Path or None
        Skeleton points of the label's instances.
    group : str or None
        Cases of one group (a patient, an embryo) stay on one side of a split.
    spacing : tuple of float or None
        (Z, Y, X) in µm, in place of whatever the files say.
    weight : float
        How often the case is drawn, against the others.
    ignore : tuple of int
        Values of the label that stand for "not annotated", as the file has them: 0 in
        `open_label`, and 0 in `open_mask`.
    rules : LabelRules
        How the values of the label become ids.
    points : PointRules
        How a label file of points becomes labels.
    region : Box or None
        The part of the volume that the case is; None is all of it.
    geometry : {'header', 'stored'} or None
        Where headers say that label, mask or channels lie otherwise than the image:
        ``header`` brings them to the image's grid where no voxel is interpolated, ``stored``
        pairs voxels by their index, and None is an error at the check.
    plane_axis : {'z', 'y', 'x'}
        The axis that becomes z once all else is done: planes across it are what is learnt from.
        `spacing` and `region` are those of the files all the same.
    """

    name: str
    images: tuple[FileRef, ...]
    label: FileRef | None = None
    mask: FileRef | None = None
    skeletons: Path | None = None
    group: str | None = None
    spacing: Spacing3 | None = None
    weight: float = 1.0
    ignore: tuple[int, ...] = ()
    rules: LabelRules = NO_RULES
    points: PointRules = NO_POINTS
    region: Box | None = None
    geometry: Geometry | None = None
    plane_axis: PlaneAxis = "z"

    @property
    def image(self) -> FileRef:
        """The first image file."""
        return self.images[0]

    def open_image(self) -> Volume:
        """Open the image, its files stacked along C, without reading its voxels.

        Raises
        ------
        SourceError
            If a file cannot be read, or the channels differ in shape.
        """
        first, *others = (ref.open() for ref in self.images)
        volumes = [first, *(self._on_grid(other, first) for other in others)]
        return self._spaced(volumes[0] if len(volumes) == 1 else ChannelFiles(volumes))

    def open_label(self) -> Volume | None:
        """Open the label, values that are ignored as 0; None where the case has none."""
        if self.label is None:
            return None
        labels = self._values(self.label)
        rules = self.rules
        drop = [value for value in self.ignore if value or rules.moves_zero]
        if drop or rules.threshold is not None or rules.background:
            labels = ValueLabels(labels, rules, drop)
        return self._spaced(RenumberedLabels(labels, rules) if rules.renumbers else labels)

    def repaired(self) -> dict[str, Any] | None:
        """What `rules` did to the label, in numbers; None where nothing was asked for.

        The label is read for it once, where ids depend on the whole volume.
        """
        labels = self.open_label()
        if labels is None or not self.rules:
            return None
        if not isinstance(labels, RenumberedLabels):
            return {"rules": self.rules.to_dict()}
        found = labels.renumbering
        numbers = {"objects": found.objects, "too_small": found.small}
        return {"rules": self.rules.to_dict(), **numbers}

    def open_mask(self) -> Volume | None:
        """Open the valid mask (non-zero is annotated); None where all of the label is.

        It is what a mask file says, without ignored values, and without what the files of
        label and mask do not hold at all (tiles that are missing).
        """
        masks = [] if self.mask is None else [self._on_grid(self.mask.open_labels())]
        wanted = self.label is not None and (self.ignore or self.label.may_have_holes)
        labels = self._values(self.label) if self.label is not None and wanted else None
        masks += [h for v in (labels, *masks) if v is not None and (h := v.holes()) is not None]
        if not self.ignore:
            labels = None
        if labels is None and not masks:
            return None
        for mask in masks:
            if labels is not None and mask.shape[1:] != labels.shape[1:]:
                raise SourceError(
                    mask.name,
                    f"the valid mask is {mask.shape[1:]}, the label {labels.shape[1:]} (Z, Y, X)",
                    "give both one shape",
                )
        return self._spaced(ValidMask(labels, self.ignore, masks))

    def paths(self) -> tuple[Path, ...]:
        """Every file of the case, once."""
        refs = [ref for ref in (*self.images, self.label, self.mask) if ref is not None]
        paths = [ref.path for ref in refs]
        return tuple(dict.fromkeys(paths if self.skeletons is None else [*paths, self.skeletons]))

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON and YAML."""
        return {
            "name": self.name,
            "images": [ref.to_dict() for ref in self.images],
            "label": self.label.to_dict() if self.label else None,
            "mask": self.mask.to_dict() if self.mask else None,
            "skeletons": str(self.skeletons) if self.skeletons else None,
            "group": self.group,
            "spacing": list(self.spacing) if self.spacing else None,
            "weight": self.weight,
            "ignore": list(self.ignore),
            "rules": self.rules.to_dict(),
            "geometry": self.geometry,
            "points": self.points.to_dict(),
            "region": self.region and [list(self.region.start), list(self.region.stop)],
            # Left out where nothing is turned, so that older sets are known again.
            **({} if self.plane_axis == "z" else {"plane_axis": self.plane_axis}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Case:
        """The inverse of `to_dict`."""
        label, mask, skeletons = (values.get(key) for key in ("label", "mask", "skeletons"))
        spacing, region = values.get("spacing"), values.get("region")
        return cls(
            name=values["name"],
            images=tuple(FileRef.from_dict(item) for item in values["images"]),
            label=FileRef.from_dict(label) if label else None,
            mask=FileRef.from_dict(mask) if mask else None,
            skeletons=Path(skeletons) if skeletons else None,
            group=values.get("group"),
            spacing=(float(spacing[0]), float(spacing[1]), float(spacing[2])) if spacing else None,
            weight=float(values.get("weight", 1.0)),
            ignore=tuple(int(value) for value in values.get("ignore", ())),
            rules=LabelRules.from_dict(values.get("rules", {})),
            geometry=values.get("geometry"),
            points=PointRules.from_dict(values.get("points", {})),
            region=Box(three(region[0]), three(region[1])) if region else None,
            plane_axis=values.get("plane_axis", "z"),
        )

    def _values(self, label: FileRef) -> Volume:
        """The label as the file has it: ids, or what the rules make ids of; on the image's grid."""
        if label.is_points:
            image = self.image.open()
            if self.spacing is not None:
                image.spacing = self.spacing
            return PointLabels(label.path, read_points(label.path), image, self.points)
        if self.rules.colours:
            return self._on_grid(ColourLabels(label.open()))
        return self._on_grid(label.open_labels() if self.rules.threshold is None else label.open())

    def _on_grid(self, volume: Volume, image: Volume | None = None) -> Volume:
        """The volume on the image's grid, where headers are to be followed."""
        if self.geometry != "header":
            return volume
        return aligned(volume, self.image.open() if image is None else image)

    def _spaced(self, volume: Volume) -> Volume:
        if self.region is not None:
            volume = RegionVolume(volume, self.region)
        if self.spacing is not None:
            volume = copy.copy(volume)
            volume.spacing = self.spacing
        return sliced(volume, self.plane_axis)


@dataclass(frozen=True, slots=True)
class Fold:
    """Names of the cases that train, and of those that validate."""

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cases(Sequence[Case]):
    """The cases of a data set, in the natural order of their names, and how they were found.

    Attributes
    ----------
    items : tuple of Case
    layout : str
        One of `LAYOUTS`, ``file`` or ``list``.
    reason : str
        What the layout was recognised by.
    findings : tuple of Finding
        What the names of the files bring up; errors among them forbid going on.
    label_kind : {'instances', 'classes'}
        What the ids of the labels stand for.
    class_names : dict of int to str
        What the data set calls its classes; empty where it does not say.
    class_regions : dict of str to tuple of int
        Classes that are trained on together, by the name of their union.
    folds : tuple of Fold
        Splits that come with the data set.
    """

    items: tuple[Case, ...]
    layout: str
    reason: str
    findings: tuple[Finding, ...] = ()
    label_kind: LabelKind = "instances"
    class_names: Mapping[int, str] = field(default_factory=dict)
    class_regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    folds: tuple[Fold, ...] = ()

    @property
    def has_background(self) -> bool:
        """Whether 0 is annotated anywhere, and not merely what ignored values are read as.

        Voxels are read where values other than 0 are ignored, up to the first such 0.
        """
        return any(_has_background(case) for case in self.items if case.label is not None)

    def read_as(
        self,
        *,
        label_kind: LabelKind | None = None,
        ignore: Sequence[int] = (),
        rules: LabelRules | None = None,
        geometry: Geometry | None = None,
        allow_external: bool = False,
        points: PointRules | None = None,
    ) -> Cases:
        """The cases with what a user says of how their files are read.

        Parameters
        ----------
        label_kind : {'instances', 'classes'} or None
            None keeps what the layout says.
        ignore : sequence of int
            Values that stand for "not annotated", beside those that are known already.
        rules : LabelRules or None
            How values become ids; None keeps them as they are.
        points : PointRules or None
            How label files of points become labels.
        geometry, allow_external
            As in `Case` and `FileRef`.

        Raises
        ------
        ConfigError
            If classes would be renumbered, each case by itself.
        """
        rules = rules or NO_RULES
        pieces = rules.connected_components is not None
        kind = label_kind or ("instances" if pieces else self.label_kind)
        if kind == "classes" and (pieces or rules.relabel):
            what = "connected_components" if pieces else "relabel"
            raise ConfigError(
                f"data.labels.{what}: numbers the objects of each case by itself, so that no "
                "class would keep its number; set data.label_kind: instances, or leave it out"
            )

        def read(ref: FileRef | None) -> FileRef | None:
            return None if ref is None else replace(ref, allow_external=allow_external)

        items = tuple(
            replace(
                case,
                images=tuple(replace(ref, allow_external=allow_external) for ref in case.images),
                label=read(case.label),
                mask=read(case.mask),
                ignore=tuple(dict.fromkeys((*case.ignore, *ignore))),
                rules=rules,
                geometry=geometry,
                points=points or NO_POINTS,
            )
            for case in self.items
        )
        return replace(self, items=items, label_kind=kind)

    def by_time(self) -> Cases:
        """A case of each time point, those of one series in one group.

        Raises
        ------
        SourceError
            If a file cannot be read, or a label has another number of time points.
        """
        return replace(self, items=tuple(point for case in self.items for point in _times(case)))

    def sliced(self, axis: PlaneAxis) -> Cases:
        """The cases as stacks of their planes across an axis, which becomes z.

        Raises
        ------
        ConfigError
            If a case brings skeletons, which are points of the volume as it is stored.
        """
        for case in self.items:
            if axis != "z" and case.skeletons is not None:
                raise ConfigError(
                    f"patching.do_2d: {case.name} brings skeletons, which are not turned; leave "
                    "them out, and set skeletons.enabled to make them anew"
                )
        return replace(self, items=tuple(replace(c, plane_axis=axis) for c in self.items))

    def cut(self, regions: Sequence[Region]) -> Cases:
        """A case of each region, in place of the volumes that they lie in.

        Regions that share voxels are one group, so that they stay on one side of the split;
        those of a case that is in a group already, too. Sides that are given become a fold.

        Raises
        ------
        ConfigError
            If a region names no case, lies outside its volume, or some have sides and some
            have none; if a case without a region is left, or one with skeletons has regions.
        """
        if not regions:
            return self
        names = [case.name for case in self.items]
        for region in regions:
            if region.case is not None and region.case not in names:
                raise ConfigError(
                    f"data.regions: no case is called {region.case!r}"
                    f"{did_you_mean(region.case, names)}"
                )
        sided = [region.side is not None for region in regions]
        if any(sided) and not all(sided):
            raise ConfigError(
                "data.regions: some have a `side` and some none; give all one, or none"
            )
        parts = [part for case in self.items for part in _parts(case, regions)]
        if not parts:
            raise ConfigError("data.regions: no region lies in any case")
        left = sorted(set(names) - {name for name, _, _ in parts})
        findings = self.findings
        if left:
            found = f"{', '.join(left[:5])}: no region lies in it, so that it is not used"
            findings = (*findings, Finding("file-left-out", found))
        folds = self.folds
        if all(sided):
            train, val = (
                tuple(part.name for _, part, region in parts if region.side == side)
                for side in ("train", "val")
            )
            folds = (Fold(train, val),)
        items = tuple(part for _, part, _ in parts)
        return replace(self, items=items, folds=folds, findings=findings)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Case, ...]: ...
    def __getitem__(self, index: int | slice) -> Case | tuple[Case, ...]:
        return self.items[index]

    def __iter__(self) -> Iterator[Case]:
        return iter(self.items)

    def named(self, name: str) -> Case:
        """The case called `name`.

        Raises
        ------
        KeyError
            If there is none; the message names the nearest.
        """
        for case in self.items:
            if case.name == name:
                return case
        raise KeyError(
            f"no case is called {name!r}{did_you_mean(name, [case.name for case in self.items])}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON and YAML."""
        return {
            "layout": self.layout,
            "reason": self.reason,
            "findings": [finding.to_dict() for finding in self.findings],
            "label_kind": self.label_kind,
            "class_names": {str(value): name for value, name in self.class_names.items()},
            "class_regions": {name: list(some) for name, some in self.class_regions.items()},
            "folds": [{"train": list(f.train), "val": list(f.val)} for f in self.folds],
            "cases": [case.to_dict() for case in self.items],
        }


def _times(case: Case) -> list[Case]:
    """The time points of a case; the case itself where it has only one."""
    refs = [ref for ref in (*case.images, case.label, case.mask) if ref is not None]
    counts = {ref: 1 if is_points(ref.path) else replace(ref, time=0).open().times for ref in refs}
    whole = counts[case.image]
    if set(counts.values()) == {1}:
        return [case]
    for ref, count in counts.items():
        if count != whole:
            raise SourceError(
                ref,
                f"has {count} time points, and {case.image} {whole}",
                "give all files of a case the same ones",
            )
    if case.skeletons is not None:
        raise ConfigError(f"data.time: {case.name} brings skeletons, which belong to no time point")

    def at(ref: FileRef | None, time: int) -> FileRef | None:
        return None if ref is None else replace(ref, time=time)

    return [
        replace(
            case,
            name=f"{case.name}_t{time:03d}",
            images=tuple(replace(ref, time=time) for ref in case.images),
            label=at(case.label, time),
            mask=at(case.mask, time),
            group=case.group or case.name,
        )
        for time in range(whole)
    ]


def _parts(case: Case, regions: Sequence[Region]) -> list[tuple[str, Case, Region]]:
    """The cases that the regions of one case become, with where they come from."""
    own = [region for region in regions if region.case in (None, case.name)]
    if not own:
        return []
    if case.skeletons is not None:
        raise ConfigError(
            f"data.regions: {case.name} brings skeletons of the whole volume, which are not cut; "
            "leave them out, and set skeletons.enabled to make them anew"
        )
    image = case.open_image()
    boxes = [region.box(case.name, image.shape, image.spacing) for region in own]
    groups = list(range(len(boxes)))
    for i, box in enumerate(boxes):
        for j in range(i):
            if box.overlaps(boxes[j]):
                old, new = groups[i], groups[j]
                groups = [new if group == old else group for group in groups]
    found = []
    for number, (region, box) in enumerate(zip(own, boxes, strict=True)):
        shared = groups.count(groups[number]) > 1
        group = case.group or (f"{case.name} {groups[number]}" if shared else None)
        name = f"{case.name}.{region.name or f'region{number}'}"
        found.append((case.name, replace(case, name=name, region=box, group=group), region))
    return found


def _has_background(case: Case) -> bool:
    if not case.ignore or 0 in case.ignore:
        return not case.ignore
    label, mask = case.open_label(), case.open_mask()
    if label is None or mask is None:
        return True
    walk = zip(label.slabs(), mask.slabs(), strict=True)
    return any(((ids == 0) & (valid != 0)).any() for (_, ids), (_, valid) in walk)
