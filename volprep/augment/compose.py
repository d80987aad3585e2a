"""`Compose`: draw once, move every array through one map, then change intensities in place."""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from volprep.augment.margins import required_shape
from volprep.augment.objects import CopyPaste, Pasted
from volprep.augment.program import Program, expect_sections
from volprep.augment.scale import measure_scale
from volprep.augment.smoothing import smooth_labels
from volprep.augment.transform import (
    Drawn,
    Generator,
    IntensityTransform,
    LinearTransform,
    SpatialTransform,
    TargetType,
    Transform,
    Values,
)
from volprep.errors import did_you_mean
from volprep.geometry import Box, Shape3, Spacing3, VolumeLike, three
from volprep.randomness import sample_generator
from volprep.warp import Border, CoordinateMap, resample

__all__ = ["Compose"]

log = logging.getLogger(__name__)

#: Targets that `skip_targets` may name whether or not a sample has them.
COMMON = ("image", "label", "mask", "valid_mask", "skeletons")
#: Masks that say where a sample is to be believed.
VALID = ("mask", "valid_mask")

Array = npt.NDArray[Any]
Sample = dict[str, Any]
Range = tuple[float, float]
Step = tuple[Transform, Values]


@runtime_checkable
class Movable(Protocol):
    """Points that move themselves, such as `volprep.skeletons.Skeletons`."""

    def transform(self, points_fn: Callable[..., Any]) -> Any:
        """The same with every point sent through a function of (N, 3)."""
        ...


class Tally:
    """How many draws fitted into what was read; told once about an epoch where few did.

    Counted for each process, without a lock: a count lost is no harm.
    """

    #: Draws after which is told, nnU-Net's epoch of two patches a batch; and how many must fit.
    EVERY, ENOUGH = 500, 0.8

    def __init__(self) -> None:
        self.draws = self.fitted = 0

    def add(self, fits: bool, size: Shape3, wanted: Shape3) -> None:
        """Count one, and say so where it is time and too few fitted."""
        self.draws += 1
        self.fitted += fits
        if self.draws < self.EVERY:
            return
        share, self.draws, self.fitted = self.fitted / self.draws, 0, 0
        if share < self.ENOUGH:
            log.warning(
                "augment: %.0f%% of the draws of %s fit into what is stored; the rest is mirrored "
                "and not valid; store %s (plan.aug_patch_size) or turn and scale less",
                100 * share, size, wanted,
            )  # fmt: skip


class Compose:
    """Augment samples: images, masks and points together.

    Parameters
    ----------
    transforms : sequence of Transform
        Spatial ones become one map: the volume is turned, scaled and flipped
        (in the order of the list), then bent, then its sections are moved or
        lost. The others follow in the order of the list.
    input_size : sequence of three ints
        (Z, Y, X) of the result.
    additional_targets : dict of str to {'img', 'mask', 'points'}, optional
        What a sample holds beside ``image``, by name. An ``img`` is
        interpolated and its intensities change as the image's do; a ``mask``
        keeps its ids and its dtype; ``points`` are a dict of id to (N, 3), or
        an object with a method ``transform(function)``.
    smooth : bool
        Smooth the outlines of masks afterwards (`smooth_labels`).
    border : {'reflect', 'fill', 'raise'}
        What lies beyond the sample: its mirror image, zeros, or a
        `WarpingOOBError`. Samples of `required_shape` never need it.
    value_range : pair of floats, or one pair for each channel, optional
        Low and high end of the image's values, which amounts are fractions of.
        None takes the range of each channel of each sample, outliers aside, as
        `volprep.augment.measure_scale` says: what the loader and the preview do.
    spacing : sequence of three floats, optional
        (Z, Y, X) of a voxel, so that free rotations are physical. None takes cubes.
    ignore : int, optional
        What ``label`` is where its voxels would be invented beyond the sample; None
        mirrors it there as the image is. The masks ``mask`` and ``valid_mask`` are 0 there.
    seed : int
        For calls without a generator.

    Notes
    -----
    After PyTorch Connectomics' `Compose`. Differs: every draw comes from the
    generator handed in, so that workers never repeat each other; arrays are
    interpolated once and cropped by the same map; the patch that must be read
    follows from the ranges of the transforms; `smooth` is off by default and
    keeps every id.

    Examples
    --------
    >>> targets = {"label": "mask", "valid_mask": "mask"}
    >>> augment = Compose([Rotate(), Flip(), Grayscale()], (8, 256, 256), targets)
    >>> augmented = augment({"image": image, "label": label, "valid_mask": valid}, rng)
    """

    def __init__(
        self,
        transforms: Sequence[Transform],
        input_size: Sequence[int] = (8, 256, 256),
        additional_targets: Mapping[str, TargetType] | None = None,
        *,
        smooth: bool = False,
        border: Border = "reflect",
        value_range: Sequence[Any] | None = None,
        spacing: Sequence[float] | None = None,
        ignore: int | None = None,
        seed: int = 0,
    ) -> None:
        self.transforms = tuple(_checked(transforms))
        self.input_size = _shape(input_size)
        self.targets = _targets(self.transforms, additional_targets)
        _check_skipped(self.transforms, [*dict.fromkeys((*self.targets, *COMMON))])
        _check_copied(self.transforms, self.targets)
        self.smooth = smooth
        self.border: Border = border
        self.value_range = value_range
        self.spacing = _spacing(spacing)
        self.ignore = ignore
        self.seed = seed
        self._told = Tally()
        self._calls = itertools.count()
        self._process = os.getpid()
        self._alters = any(isinstance(t, IntensityTransform) for t in self.transforms)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the count of calls, which belongs to one process."""
        return {k: v for k, v in vars(self).items() if k != "_calls"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _calls=itertools.count())

    @property
    def required_shape(self) -> Shape3:
        """The patch (Z, Y, X) to read, so that no draw needs the border."""
        return required_shape(self.transforms, self.input_size, self.spacing)

    def reaches_beyond(self, drawn: Drawn, shape: Sequence[int]) -> Shape3:
        """How many voxels (Z, Y, X) a draw reads beyond a sample of `shape`; 0 where it fits."""
        centre = [(n - 1) / 2 for n in shape]
        box = self.coordinate_map(drawn, centre).source_box(self.input_size)
        pairs = zip(box.start, box.stop, shape, strict=True)
        return three(max(0, -a, b - n) for a, b, n in pairs)

    def source_block(self, drawn: Drawn, centre: Sequence[float], shape: Sequence[int]) -> Box:
        """What of a volume of a shape (Z, Y, X) a draw about a place is made from.

        Of that part alone, with `centre` in its voxels, the same sample is made as of the whole.
        """
        first, *others = (
            self.coordinate_map(drawn, centre, names[0]).source_block(
                self.input_size, shape, self.border
            )
            for names in self._groups()
        )
        for other in others:
            first = first.around(other)
        return first

    def freedom(self, drawn: Drawn, shape: Sequence[int], inside: Box) -> tuple[Shape3, Shape3]:
        """How far the patch of a draw may move from the middle of a sample.

        Parameters
        ----------
        drawn : Drawn
        shape : sequence of three ints
            (Z, Y, X) of the sample.
        inside : Box
            What of the sample is data, and not filled in.

        Returns
        -------
        lowest, highest : (Z, Y, X)
            Moves in whole voxels, the same where there is no room. All that lies between reads
            nothing but data; where no move does, the one that reads the most of it while it
            stays in the sample, or none.
        """
        centre = [(n - 1) / 2 for n in shape]
        read = self.coordinate_map(drawn, centre).source_box(self.input_size)
        moves = [
            _moves((a, b), (low, high), n)
            for a, b, low, high, n in zip(
                read.start, read.stop, inside.start, inside.stop, shape, strict=True
            )
        ]
        return three(low for low, _ in moves), three(high for _, high in moves)

    def draw(self, rng: Generator) -> Drawn:
        """Draw the parameters of one augmentation, and apply nothing."""
        steps: list[tuple[str, Values | None]] = []
        for transform in self.transforms:
            acts = transform.enabled and rng.random() < transform.p
            values = transform.draw(rng, self.input_size) if acts else None
            steps.append((transform.name, values))
        return Drawn(self.input_size, tuple(steps))

    def describe(self, drawn: Drawn) -> list[str]:
        """What was drawn in words, one sentence for each transform that acts."""
        return [transform.describe(values) for transform, values in self._steps(drawn)]

    def coordinate_map(
        self, drawn: Drawn, centre: Sequence[float], target: str = "image"
    ) -> CoordinateMap:
        """The map of one draw, from output voxels to source voxels.

        Parameters
        ----------
        drawn : Drawn
        centre : sequence of three floats
            The source position (Z, Y, X) that the middle of the patch shows;
            the middle of n voxels is (n - 1) / 2. It is rounded down by up to
            half a voxel where that saves an interpolation.
        target : str
            For which target; they differ only by `skip_targets`.
        """
        moving = [
            (transform, values)
            for transform, values in self._steps(drawn)
            if isinstance(transform, SpatialTransform) and target not in transform.skip_targets
        ]
        sections = self._chained(moving, "sections")
        bent = self._chained(moving, "displacement")
        linear = np.eye(3)
        for transform, values in moving:
            if isinstance(transform, LinearTransform):
                linear = linear @ transform.linear(values, self.spacing)
        last = _about(linear, self.input_size, centre)
        whole = last if bent is None else bent.then(last)
        if sections is None:
            return whole
        # Sections are the first step of any map, so they need no composing.
        return whole.with_parts(
            section_moves=sections.section_moves, section_index=sections.section_index
        )

    def _chained(
        self, moving: Sequence[tuple[SpatialTransform, Values]], stage: str
    ) -> CoordinateMap | None:
        """The maps of one stage, the last of the list first, as seen from the output."""
        found: CoordinateMap | None = None
        for transform, values in reversed(moving):
            if transform.stage == stage:
                part = transform.coordinate_map(values, self.input_size, self.spacing)
                found = part if found is None else found.then(part)
        return found

    def __call__(
        self,
        sample: Mapping[str, Any],
        rng: Generator | None = None,
        *,
        replay: Drawn | None = None,
        centre: Sequence[float] | None = None,
        out: Mapping[str, Array] | None = None,
    ) -> Sample:
        """Augment one sample.

        Parameters
        ----------
        sample : dict
            ``image`` (Z, Y, X) or (C, Z, Y, X), and every additional target,
            over the same voxels. Other entries go through as they are.
        rng : numpy.random.Generator
            Where the draw comes from; in a dataset
            ``volprep.randomness.sample_generator(seed, epoch, index)``. Without
            it the n-th call of this object uses (seed, 0, n), in the process
            that made it alone.
        replay : Drawn, optional
            What `draw` gave, instead of `rng`.
        centre : sequence of three floats, optional
            The voxel (Z, Y, X) of the sample that the middle of the patch shows; None shows
            the sample's own middle.
        out : dict of str to array, optional
            Where to write each target that is no points, by name: C-contiguous, of the shape
            and dtype that is returned. None makes new arrays.

        Returns
        -------
        dict
            Arrays of `input_size`: images float32, masks in their own
            dtype, points as they came. Nothing in `sample` is changed.

        Raises
        ------
        ValueError
            If a target is missing, is of another shape, or an array of the
            image's size is not declared.
        TypeError
            Without a generator in another process than the one that made this
            object: there the count of calls would repeat.
        WarpingOOBError
            If `border` is ``raise`` and the sample is too small.
        """
        drawn = self._drawn(rng, replay)
        shape = _check_sample(sample, self.targets)
        if centre is None:
            centre = [(n - 1) / 2 for n in shape]

        def fetch(name: str, _: CoordinateMap) -> tuple[Array, Shape3]:
            return np.asarray(sample[name]), (0, 0, 0)

        moved = self._moved(drawn, centre, fetch, sample, out)
        return {**sample, **self._changed(drawn, moved)}

    def read(
        self,
        volumes: Mapping[str, VolumeLike],
        centre: Sequence[float],
        rng: Generator | None = None,
        *,
        replay: Drawn | None = None,
        points: Mapping[str, Any] | None = None,
    ) -> Sample:
        """Read one augmented sample straight from volumes, and no more than it needs.

        Parameters
        ----------
        volumes : dict of str to VolumeLike
            ``image`` and every additional target that is no points.
        centre : sequence of three floats
            The voxel (Z, Y, X) that the middle of the patch shows.
        rng, replay
            As in a call.
        points : dict, optional
            The targets that are points, in voxels of the volumes.

        Returns
        -------
        dict
            As a call returns.
        """
        drawn = self._drawn(rng, replay)
        sources = {**volumes, **(points or {})}
        _check_names(sources, self.targets)

        def fetch(name: str, coordinates: CoordinateMap) -> tuple[Array, Shape3]:
            volume = volumes[name]
            block = coordinates.source_block(self.input_size, volume.shape, self.border)
            voxels = volume.read(block)
            single = self.targets[name] == "mask" and voxels.shape[0] == 1
            return (voxels[0] if single else voxels), block.start

        return self._changed(drawn, self._moved(drawn, centre, fetch, sources, None))

    def _drawn(self, rng: Generator | None, replay: Drawn | None) -> Drawn:
        if replay is not None:
            self._steps(replay)
            return replay
        if isinstance(rng, np.random.Generator):
            return self.draw(rng)
        if rng is not None:
            raise TypeError(f"rng: found {type(rng).__name__}; wanted a numpy.random.Generator")
        if os.getpid() != self._process:
            raise TypeError(
                "Compose: no generator in a worker process, where samples would repeat; call it "
                "with volprep.randomness.sample_generator(seed, epoch, index)"
            )
        return self.draw(sample_generator(self.seed, 0, next(self._calls)))

    def _steps(self, drawn: Drawn) -> list[Step]:
        """The transforms that act, with their values."""
        names = [transform.name for transform in self.transforms]
        if drawn.shape != self.input_size or [name for name, _ in drawn.steps] != names:
            raise ValueError(
                f"replay: drawn for {drawn.shape} by {[n for n, _ in drawn.steps]}; "
                f"this Compose is {self.input_size} by {names}"
            )
        pairs = zip(self.transforms, drawn.steps, strict=True)
        return [(transform, values) for transform, (_, values) in pairs if values is not None]

    def _moved(
        self,
        drawn: Drawn,
        centre: Sequence[float],
        fetch: Callable[[str, CoordinateMap], tuple[Array, Shape3]],
        sources: Mapping[str, Any],
        out: Mapping[str, Array] | None,
    ) -> Sample:
        """Every target through its map; those with one and the same map together."""
        if self._alters:
            expect_sections()
            self._alters = False
        moved: Sample = {}
        for names in self._groups():
            coordinates = self.coordinate_map(drawn, centre, names[0])
            labels: tuple[Array, Shape3] | None = None
            for arrays in _together(names, self.targets):
                fetched = [fetch(name, coordinates) for name in arrays]
                labels = dict(zip(arrays, fetched, strict=True)).get("label", labels)
                moved.update(self._resampled(coordinates, arrays, fetched, out))
            move: Callable[[npt.ArrayLike], npt.NDArray[np.float32]] = coordinates.inverse_points
            if labels is not None and labels[0].ndim == 3:
                move = _Inside(move, *labels, moved["label"])
            for name in names:
                if self.targets[name] == "points":
                    moved[name] = _move_points(sources[name], move)
        return moved

    def _groups(self) -> list[list[str]]:
        """Targets by the spatial transforms that they skip."""
        groups: dict[tuple[int, ...], list[str]] = {}
        for name in self.targets:
            skipped = tuple(
                n
                for n, transform in enumerate(self.transforms)
                if transform.kind == "spatial" and name in transform.skip_targets
            )
            groups.setdefault(skipped, []).append(name)
        return list(groups.values())

    def _resampled(
        self,
        coordinates: CoordinateMap,
        names: Sequence[str],
        fetched: Sequence[tuple[Array, Shape3]],
        out: Mapping[str, Array] | None,
    ) -> Iterator[tuple[str, Array]]:
        """An image, if the names begin with one, and masks, each read once."""
        image = fetched[0][0] if self.targets[names[0]] == "img" else None
        first = 0 if image is None else 1
        within = Box.at(fetched[0][1], fetched[0][0].shape[-3:])
        fits = within.contains(coordinates.source_box(self.input_size))
        if image is not None:
            self._told.add(fits, self.input_size, self.required_shape)
        apart = [] if fits else self._invented(coordinates, names, fetched, out)
        yield from apart
        done = {name for name, _ in apart}
        kept = [n for n, name in enumerate(names) if name not in done]
        names, fetched = [names[n] for n in kept], [fetched[n] for n in kept]
        if not names:
            return
        result, labels = resample(
            coordinates,
            self.input_size,
            None if image is None else _with_channels(image),
            [array for array, _ in fetched[first:]],
            origin=fetched[0][1],
            border=self.border,
            out=None
            if out is None
            else (
                _with_channels(out[names[0]]) if first else None,
                [out[n] for n in names[first:]],
            ),
        )
        if image is not None and result is not None:
            yield names[0], result if image.ndim == 4 else result[0]
        yield from zip(names[first:], labels, strict=True)

    def _invented(
        self,
        coordinates: CoordinateMap,
        names: Sequence[str],
        fetched: Sequence[tuple[Array, Shape3]],
        out: Mapping[str, Array] | None,
    ) -> list[tuple[str, Array]]:
        """The masks that a border rule must not invent: not valid, or to be ignored there."""
        beyond: dict[str, int] = dict.fromkeys(VALID, 0)
        if self.ignore is not None:
            beyond["label"] = self.ignore
        found = []
        for name, (array, origin) in zip(names, fetched, strict=True):
            if self.border == "reflect" and self.targets[name] == "mask" and name in beyond:
                _, (result,) = resample(
                    coordinates, self.input_size, labels=[array], origin=origin, border="fill",
                    label_fill=beyond[name], out=None if out is None else (None, [out[name]]),
                )  # fmt: skip
                found.append((name, result))
        return found

    def _changed(self, drawn: Drawn, moved: Sample) -> Sample:
        """Objects and intensities, in place on arrays that nobody else holds."""
        images = {
            name: array if array.ndim == 4 else array[None]
            for name, array in moved.items()
            if self.targets[name] == "img"
        }
        remaining = [s for s in self._steps(drawn) if s[0].kind != "spatial"]
        for kind, group in itertools.groupby(remaining, key=lambda step: step[0].kind):
            if kind == "intensity":
                self._change_intensities(images, list(group))
                continue
            for transform, values in group:
                if isinstance(transform, CopyPaste):
                    moved = self._pasted(transform, values, images, moved)
        if not self.smooth:
            return moved
        return {
            name: smooth_labels(value)
            if self.targets[name] == "mask" and value.ndim == 3
            else value
            for name, value in moved.items()
        }

    def _change_intensities(
        self, images: Mapping[str, npt.NDArray[np.float32]], steps: Sequence[Step]
    ) -> None:
        for name, image in images.items():
            ranges = self._ranges(name, len(image))
            for number, (channel, given) in enumerate(zip(image, ranges, strict=True)):
                program = Program(_shape(channel.shape), channel=number, n_channels=len(image))
                for transform, values in steps:
                    acts = name not in transform.skip_targets
                    if acts and isinstance(transform, IntensityTransform):
                        transform.add_steps(values, program)
                if len(program):
                    program.run(channel, measure_scale(channel, given))

    def _ranges(self, name: str, channels: int) -> list[Range | None]:
        if self.value_range is None or name != "image":
            return [None] * channels
        given = np.asarray(self.value_range, np.float64).reshape(-1, 2).tolist()
        if len(given) == 1:
            given = given * channels
        if len(given) != channels:
            raise ValueError(f"value_range: {len(given)} pairs for {channels} channels")
        return [(low, high) for low, high in given]

    def _pasted(
        self,
        transform: CopyPaste,
        values: Values,
        images: Mapping[str, npt.NDArray[np.float32]],
        moved: Sample,
    ) -> Sample:
        acting = {n: image for n, image in images.items() if n not in transform.skip_targets}
        pasted = transform.paste(values, acting, moved[transform.label])
        if pasted is None or not transform.instances:
            return moved
        return {
            name: _with_copy(value, pasted) if self.targets[name] == "points" else value
            for name, value in moved.items()
        }


def _checked(transforms: Sequence[Transform]) -> Iterator[Transform]:
    for transform in transforms:
        if not isinstance(transform, Transform):
            hint = "; Mixup acts on a batch, call it there" if _is_mixup(transform) else ""
            raise TypeError(f"transforms: {type(transform).__name__} is no Transform{hint}")
        yield transform


def _is_mixup(transform: object) -> bool:
    return type(transform).__name__ == "Mixup"


def _shape(size: Sequence[int]) -> Shape3:
    if len(size) != 3 or min(size) < 1:
        raise ValueError(f"input_size: {tuple(size)}; wanted three positive numbers (Z, Y, X)")
    z, y, x = (int(n) for n in size)
    return z, y, x


def _spacing(spacing: Sequence[float] | None) -> Spacing3:
    if spacing is None:
        return 1.0, 1.0, 1.0
    if len(spacing) != 3 or min(spacing) <= 0:
        raise ValueError(f"spacing: {tuple(spacing)}; wanted three positive lengths (Z, Y, X)")
    z, y, x = (float(s) for s in spacing)
    return z, y, x


def _targets(
    transforms: Sequence[Transform], own: Mapping[str, TargetType] | None
) -> dict[str, TargetType]:
    """All targets by name; ``image`` first."""
    targets: dict[str, TargetType] = {"image": "img"}
    for declared in (own, *(transform.additional_targets for transform in transforms)):
        for name, kind in (declared or {}).items():
            if kind not in ("img", "mask", "points"):
                raise ValueError(
                    f"additional_targets: {name!r} has type {kind!r}; "
                    "wanted 'img', 'mask' or 'points'"
                )
            if targets.setdefault(name, kind) != kind:
                raise ValueError(
                    f"additional_targets: {name!r} is both {targets[name]!r} and {kind!r}"
                )
    return targets


def _check_copied(transforms: Sequence[Transform], targets: Mapping[str, TargetType]) -> None:
    """Objects are copied by their label, which must be among the targets."""
    for transform in transforms:
        if isinstance(transform, CopyPaste) and targets.get(transform.label) != "mask":
            raise ValueError(
                f"copy_paste: needs a mask {transform.label!r} among additional_targets, such as "
                f"{{{transform.label!r}: 'mask'}}; without labels leave copy_paste out"
            )


def _check_skipped(transforms: Sequence[Transform], known: Sequence[str]) -> None:
    """A name that is no target would be skipped by no one, without a word."""
    for transform in transforms:
        for name in transform.skip_targets:
            if name not in known:
                raise ValueError(
                    f"{transform.name}.skip_targets: {name!r} is no target"
                    f"{did_you_mean(name, known)}"
                )


def _about(
    linear: npt.NDArray[np.float64], shape: Shape3, centre: Sequence[float]
) -> CoordinateMap:
    """A linear map about the patch's middle; whole voxels stay whole where an axis allows it."""
    matrix = []
    for row, at in zip(linear.tolist(), centre, strict=True):
        offset = at - sum(step * (n - 1) / 2 for step, n in zip(row, shape, strict=True))
        whole = all(step.is_integer() for step in row)
        matrix.append([*row, math.floor(offset + 1e-6) if whole else offset])
    return CoordinateMap(np.array([*matrix, [0, 0, 0, 1]], np.float64))


def _moves(read: tuple[int, int], data: tuple[int, int], size: int) -> tuple[int, int]:
    """How far what is read of one axis may move, so that it stays in the data."""
    low, high = data[0] - read[0], data[1] - read[1]
    if low <= high:
        return low, high
    if read[1] - read[0] > size:
        return 0, 0
    best = min(max((low + high) // 2, -read[0]), size - read[1])
    return best, best


def _together(names: Sequence[str], targets: Mapping[str, TargetType]) -> list[list[str]]:
    """Each image on its own; the masks go along with the first one."""
    images = [[name] for name in names if targets[name] == "img"]
    masks = [name for name in names if targets[name] == "mask"]
    if not images:
        return [masks] if masks else []
    return [images[0] + masks, *images[1:]]


def _check_sample(sample: Mapping[str, Any], targets: Mapping[str, TargetType]) -> Shape3:
    """Every target is there, of the image's size, and nothing of that size is left out."""
    _check_names(sample, targets)
    image = np.asarray(sample["image"])
    if image.ndim not in (3, 4):
        raise ValueError(f"image: shape {image.shape}, wanted (Z, Y, X) or (C, Z, Y, X)")
    shape = _shape(image.shape[-3:])
    for name, value in sample.items():
        if targets.get(name) == "points" or not isinstance(value, np.ndarray):
            continue
        if name in targets and (value.shape[-3:] != shape or value.ndim not in (3, 4)):
            raise ValueError(f"{name}: shape {value.shape}, wanted {shape} as the image")
        if name not in targets and value.ndim >= 3 and value.shape[-3:] == shape:
            raise ValueError(
                f"{name}: an array as large as the image, but not among additional_targets; "
                f"add {name!r} with its type, 'img' or 'mask', or take it out of the sample"
            )
    return shape


def _check_names(sample: Mapping[str, Any], targets: Mapping[str, TargetType]) -> None:
    missing = [name for name in targets if name not in sample]
    if missing:
        raise ValueError(f"sample: no {missing}; it holds {sorted(sample)}")


def _with_channels(image: Array) -> Array:
    """(C, Z, Y, X)."""
    return image if image.ndim == 4 else image[None]


@dataclass(frozen=True)
class _Inside:
    """Moves points, and keeps those that lay in an object in it.

    A label is read at the middle of each voxel, a point lies anywhere between: near the rim of
    an object half a voxel decides, and the point goes to the nearest voxel of its object.
    """

    move: Callable[[npt.ArrayLike], npt.NDArray[np.float32]]
    before: Array
    origin: Shape3
    after: Array

    def __call__(self, points: npt.ArrayLike) -> npt.NDArray[np.float32]:
        at = np.asarray(points, np.float64).reshape(-1, 3)
        moved = self.move(at)
        own, known = _labels_at(self.before, at - np.array(self.origin))
        now, shown = _labels_at(self.after, moved.astype(np.float64))
        for n in np.flatnonzero(known & shown & (own != now) & (own != 0)).tolist():
            moved[n] = self._nearest(moved[n], own[n])
        return moved

    def _nearest(self, point: npt.NDArray[np.float32], own: Any) -> npt.NDArray[np.float32]:
        """The nearest place within two voxels that is of the object; as it is where none is."""
        voxels = np.rint(point) + _NEIGHBOURS
        labels, shown = _labels_at(self.after, voxels)
        places = np.clip(point, voxels - 0.49, voxels + 0.49)
        distance = np.where(shown & (labels == own), ((places - point) ** 2).sum(1), np.inf)
        best = int(distance.argmin())
        return places[best].astype(np.float32) if np.isfinite(distance[best]) else point


_NEIGHBOURS = np.stack(np.meshgrid(*[np.arange(-2.0, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)


def _labels_at(
    label: Array, points: npt.NDArray[np.float64]
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The label of the voxel around each point, and whether there is one."""
    voxels = np.rint(points).astype(np.int64)
    inside: npt.NDArray[np.bool_] = np.all((voxels >= 0) & (voxels < label.shape), axis=1)
    z, y, x = np.where(inside[:, None], voxels, 0).T
    return label[z, y, x], inside


def _move_points(points: Any, move: Callable[[npt.ArrayLike], npt.NDArray[np.float32]]) -> Any:
    """Whatever can transform itself, or a dict of point arrays, all through one call."""
    if isinstance(points, Movable):
        return points.transform(move)
    arrays = [np.asarray(value).reshape(-1, 3) for value in points.values()]
    if not arrays:
        return dict(points)
    ends = np.cumsum([len(a) for a in arrays])[:-1]
    return dict(zip(points, np.split(move(np.concatenate(arrays)), ends), strict=True))


def _with_copy(points: Any, pasted: Pasted) -> Any:
    """The points and those of the copy, as a dict."""
    if not isinstance(points, Mapping):
        raise ValueError(
            "copy_paste: a copy needs points of its own; give points as a dict of id to (N, 3)"
        )
    if pasted.source not in points:
        return points
    return {**points, pasted.target: pasted.move(points[pasted.source])}
