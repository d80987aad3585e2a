"""Intensity normalisation: decided once from plain numbers, applied in one pass, undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Normalisation", "NormalisationKind"]

NormalisationKind = Literal["zscore", "background", "minmax", "percentile", "given", "none"]
_DIRECT = tuple(np.dtype(t) for t in (np.uint8, np.uint16, np.int16, np.float32))
_KINDS: tuple[NormalisationKind, ...] = (
    "zscore", "background", "minmax", "percentile", "given", "none",
)  # fmt: skip


@dataclass(frozen=True)
class Normalisation:
    """How the intensities of a volume become float32: clip, subtract `offset`, divide by `scale`.

    Everything is a number that has been decided already, so that the same object
    stands in the plan, in ``train.yaml`` and in the loader, and can be undone.

    Parameters
    ----------
    kind : {'zscore', 'background', 'minmax', 'percentile', 'given', 'none'}
        The name of the rule that gave the numbers.
    offset, scale : tuple of float
        Per channel, in the units of the volume; empty for ``none``. One entry serves
        every channel.
    clip : tuple of (low, high) or None
        Per channel, in the units of the volume; one entry serves every channel.

    Raises
    ------
    ValueError
        For an unknown kind, a scale that is not positive, bounds in the wrong order.
    """

    kind: NormalisationKind
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    clip: tuple[tuple[float, float], ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"unknown normalisation {self.kind!r}; known: {', '.join(_KINDS)}")
        if len(self.offset) != len(self.scale):
            raise ValueError(f"{len(self.offset)} offsets but {len(self.scale)} scales")
        if self.kind != "none" and not self.offset:
            raise ValueError(f"{self.kind} needs an offset and a scale for each channel")
        if not np.isfinite(self.offset).all():
            raise ValueError(f"offsets must be finite, got {self.offset}")
        if any(not (0 < s < float("inf")) for s in self.scale):
            raise ValueError(f"scales must be positive and finite, got {self.scale}")
        if self.clip is not None and any(not low <= high for low, high in self.clip):
            raise ValueError(f"clip bounds must be (low, high), got {self.clip}")

    @classmethod
    def from_statistics(
        cls,
        kind: NormalisationKind,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        minimum: Sequence[float] | None = None,
        maximum: Sequence[float] | None = None,
        percentiles: Sequence[Mapping[Any, float]] | None = None,
        clip: tuple[float, float] | None = None,
        cut: Sequence[tuple[float, float]] | None = None,
        bounds: tuple[float, float] = (0.5, 99.5),
    ) -> Normalisation:
        """Decide the numbers from the statistics of a data set or of one image.

        Parameters
        ----------
        kind : {'zscore', 'background', 'minmax', 'percentile', 'given', 'none'}
            ``zscore`` and ``given``: `mean` and `std`; ``background``: the lower bound
            of `cut` or `clip` becomes 0 (without either, `minimum`) and `std` 1;
            ``minmax``: `minimum` to
            `maximum` becomes 0 to 1; ``percentile``: the two percentiles of
            `bounds` become 0 and 1, or the ends of `cut` where it is given.
        mean, std, minimum, maximum : sequence of float, optional
            Per channel; only what the kind uses is needed.
        percentiles : sequence of mapping, optional
            Per channel, from percentile (0 to 100; a number, or its text as JSON
            has it) to intensity.
        clip : (float, float) or None
            Two percentiles to clip to first; None does not clip.
        cut : sequence of (float, float), optional
            Per channel: the intensities to clip to, in place of `clip`.
        bounds : (float, float)
            The percentiles of kind ``percentile``.

        Returns
        -------
        Normalisation

        Raises
        ------
        ValueError
            Where a number that the rule needs is missing.

        Notes
        -----
        As in nnU-Net's CT scheme and biom3d's ``--ct_norm``, the mean and standard
        deviation are used as given, that is of the intensities before clipping. With
        ``minmax`` the range is the clipped one. A channel of one single value becomes
        0 everywhere (scale 1).
        """
        ends = None if clip is None else _at_percentiles(percentiles, clip)
        if cut is not None:
            ends = tuple((float(low), float(high)) for low, high in cut)
        if kind == "none":
            return cls("none", clip=ends)
        if kind in ("zscore", "given"):
            offset, scale = _needed(mean, "mean", kind), _needed(std, "std", kind)
        elif kind == "background":
            scale = _needed(std, "std", kind)
            offset = (
                _needed(minimum, "minimum", kind) if ends is None else tuple(low for low, _ in ends)
            )
        else:
            if kind == "percentile" and cut is None:
                span = _at_percentiles(percentiles, bounds)
            elif ends is not None:
                span = ends
            else:
                low, high = _needed(minimum, "minimum", kind), _needed(maximum, "maximum", kind)
                span = tuple(zip(low, high, strict=True))
            offset = tuple(low for low, _ in span)
            scale = tuple(high - low for low, high in span)
        return cls(kind, offset, tuple(s if s > 0 else 1.0 for s in scale), ends)

    def apply(
        self, array: npt.NDArray[Any], out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Normalise a volume or a patch.

        Parameters
        ----------
        array : ndarray, shape (C, ...)
            Any real type, in the units of the volume.
        out : ndarray, the shape of `array`, float32, optional
            Where the result goes; contiguous.

        Returns
        -------
        ndarray, the shape of `array`, float32
            `out` where it is given.

        Raises
        ------
        ValueError
            If the number of channels is not that of the statistics, or `out` does not fit.

        Notes
        -----
        Reckoned in float64 in one pass. NaN stays NaN.
        """
        from volprep.kernels.normalise import clip_shift_scale

        result = _result(array, out)
        for channel, (low, high, offset, scale) in enumerate(self._numbers(len(array))):
            source = np.ascontiguousarray(array[channel]).reshape(-1)
            if source.dtype not in _DIRECT or not source.dtype.isnative:
                source = source.astype(np.float64)
            clip_shift_scale(source, low, high, offset, 1 / scale, result[channel].reshape(-1))
        return result

    def undo(self, array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Bring normalised intensities back to the units of the volume.

        Parameters
        ----------
        array : ndarray, shape (C, ...)
            As `apply` returns it.

        Returns
        -------
        ndarray, the shape of `array`, float32
            What was clipped stays at the bounds.
        """
        result = np.empty(array.shape, np.float32)
        for channel, (_, _, offset, scale) in enumerate(self._numbers(len(array))):
            result[channel] = array[channel].astype(np.float64) * scale + offset
        return result

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, as JSON and YAML write them."""
        return {
            "kind": self.kind,
            "offset": list(self.offset),
            "scale": list(self.scale),
            "clip": None if self.clip is None else [list(pair) for pair in self.clip],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Normalisation:
        """The object that `to_dict` described."""
        clip = data.get("clip")
        return cls(
            kind=data["kind"],
            offset=tuple(float(v) for v in data.get("offset", ())),
            scale=tuple(float(v) for v in data.get("scale", ())),
            clip=None if clip is None else tuple((float(a), float(b)) for a, b in clip),
        )

    def _numbers(self, channels: int) -> list[tuple[float, float, float, float]]:
        """(low, high, offset, scale) of each channel."""
        infinite = float("inf")
        clip = _per_channel(self.clip or ((-infinite, infinite),), channels)
        offset = _per_channel(self.offset or (0.0,), channels)
        scale = _per_channel(self.scale or (1.0,), channels)
        return [(*c, o, s) for c, o, s in zip(clip, offset, scale, strict=True)]


def _per_channel(values: Sequence[Any], channels: int) -> Sequence[Any]:
    if len(values) == 1:
        return [values[0]] * channels
    if len(values) != channels:
        raise ValueError(
            f"the array has {channels} channels (its first axis), "
            f"the normalisation was made for {len(values)}"
        )
    return values


def _needed(values: Sequence[float] | None, name: str, kind: str) -> tuple[float, ...]:
    if values is None:
        raise ValueError(f"{kind} needs the {name} of each channel")
    return tuple(float(v) for v in values)


def _at_percentiles(
    percentiles: Sequence[Mapping[Any, float]] | None, wanted: tuple[float, float]
) -> tuple[tuple[float, float], ...]:
    """The intensities at two percentiles, per channel."""
    if percentiles is None:
        raise ValueError(f"percentiles {wanted[0]:g} and {wanted[1]:g} are needed, none was given")
    pairs = []
    for channel in percentiles:
        known = {float(key): float(value) for key, value in channel.items()}
        missing = [p for p in wanted if float(p) not in known]
        if missing:
            raise ValueError(
                f"percentile {missing[0]:g} is not among those measured: "
                f"{', '.join(f'{p:g}' for p in sorted(known))}"
            )
        pairs.append((known[float(wanted[0])], known[float(wanted[1])]))
    return tuple(pairs)


def _result(
    array: npt.NDArray[Any], out: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float32]:
    if out is None:
        return np.empty(array.shape, np.float32)
    if out.shape != array.shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(
            f"out must be a contiguous float32 array of shape {array.shape}, "
            f"got {out.dtype} {out.shape}"
        )
    return out
