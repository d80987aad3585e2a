"""A list of intensity changes that runs section by section while a section is in cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.augment.scale import Scale
from volprep.geometry import Box, Shape3

__all__ = [
    "Band",
    "Program",
    "cell_means",
    "expect_sections",
    "gaussian",
    "low_resolution",
    "moving_mean",
]

_KINDS = {"uniform": 0, "normal": 1, "poisson": 2}


@dataclass(frozen=True)
class Band:
    """A linear filter along one axis of n voxels, borders included.

    Voxel i becomes the sum over q of ``weights[q, i]`` times voxel
    ``starts[i] + q``.
    """

    starts: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]

    @classmethod
    def of_matrix(cls, matrix: npt.NDArray[np.float64]) -> Band:
        """The band of a dense matrix (n, n) whose rows hold few numbers side by side."""
        n = len(matrix)
        filled = matrix != 0
        starts = np.argmax(filled, axis=1)
        taps = int((n - np.argmax(filled[:, ::-1], axis=1) - starts).max())
        index = np.minimum(starts[None] + np.arange(taps)[:, None], n - 1)
        inside = starts[None] + np.arange(taps)[:, None] < n
        weights = np.where(inside, matrix[np.arange(n)[None], index], 0.0)
        return cls(starts.astype(np.int64), np.ascontiguousarray(weights, np.float32))


@lru_cache(maxsize=64)
def moving_mean(length: int, size: int) -> Band:
    """The mean of `size` voxels about each of `length`, mirrored at the borders."""
    return _convolution(length, np.ones(size) / size)


def gaussian(length: int, sigma: float) -> Band:
    """Gaussian smoothing along `length` voxels, mirrored at the borders."""
    radius = max(1, int(np.ceil(3 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return _convolution(length, kernel / kernel.sum())


def cell_means(length: int, factor: float) -> Band:
    """Every voxel becomes the mean of its cell, `factor` voxels wide on average."""
    return _cell_means(length, _cells(length, factor))


def low_resolution(length: int, factor: float) -> Band:
    """Means of cells `factor` voxels wide, interpolated back to every voxel."""
    return _low_resolution(length, _cells(length, factor))


@lru_cache(maxsize=256)
def _cell_means(length: int, cells: int) -> Band:
    owner = _owners(length, cells)
    sizes = np.bincount(owner)
    starts = np.concatenate(([0], np.cumsum(sizes)))[owner]
    taps = np.arange(sizes.max())[:, None]
    weights = np.where(taps < sizes[owner], 1.0 / sizes[owner], 0.0)
    return Band(starts.astype(np.int64), np.ascontiguousarray(weights, np.float32))


@lru_cache(maxsize=256)
def _low_resolution(length: int, cells: int) -> Band:
    owner = _owners(length, cells)
    down = (owner[None] == np.arange(cells)[:, None]).astype(np.float64)
    down /= down.sum(1, keepdims=True)
    centres = down @ np.arange(length)
    up = np.stack([np.interp(np.arange(length), centres, row) for row in np.eye(cells)], 1)
    return Band.of_matrix(up @ down)


def expect_sections() -> None:
    """Say that programs will run, so that what they run by is compiled beside other kernels."""
    from volprep.kernels.compiling import expect
    from volprep.kernels.intensity import SECTIONS, run_sections

    expect(run_sections, SECTIONS)


class Program:
    """Steps for one channel of a patch, run together.

    Amounts are in units of the channel's `Scale`: 0 is its low end, 1 its high
    end. Values beyond either are kept.
    """

    def __init__(self, shape: Shape3, *, channel: int = 0, n_channels: int = 1) -> None:
        self.shape = shape
        self.channel = channel
        self.n_channels = n_channels
        self._steps: list[tuple[int, ...]] = []
        self._numbers: list[tuple[float, float, float, float]] = []
        self._bands: list[Band] = []
        self._n_starts = 0
        self._n_weights = 0

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def whole(self) -> Box:
        """The whole patch."""
        return Box((0, 0, 0), self.shape)

    def levels(
        self,
        sections: tuple[int, int] | None = None,
        *,
        contrast: float = 1.0,
        brightness: float = 1.0,
        gamma: float = 1.0,
        inverted: bool = False,
        clip: bool = False,
    ) -> None:
        """``((u - mean) * contrast + mean) * brightness``, then ``u ** gamma``.

        Then 1 minus that if `inverted`; `clip` keeps u within 0 to 1 before gamma. Without
        it gamma bends what lies between the ends and goes on straight beyond them.
        """
        first, last = sections or (0, self.shape[0])
        flags = float(inverted + 2 * clip)
        self._add_sections(0, first, last, (contrast, brightness, gamma, flags))

    def noise(
        self,
        box: Box,
        kind: Literal["uniform", "normal", "poisson"],
        amount: float,
        seed: Sequence[int],
    ) -> None:
        """Noise of an amplitude or standard deviation; for ``poisson`` the photons at 1."""
        self._add(1, box, (_KINDS[kind], seed[0], seed[1], 0), (amount, 0, 0, 0))

    def filter(self, box: Box, axis: int, band: Band) -> None:
        """A linear filter along axis 0, 1 or 2 of a box."""
        length = len(band.starts)
        if length != box.shape[axis]:
            raise ValueError(f"band: {length} voxels, wanted {box.shape[axis]} along axis {axis}")
        where = (axis, len(band.weights), self._n_starts, self._n_weights)
        self._add(2, box, where)
        self._bands.append(band)
        self._n_starts += length
        self._n_weights += band.weights.size

    def band(self, section: int, normal: tuple[float, float], offset: float, width: float) -> None:
        """The section's mean wherever ``|normal . (y, x) - offset| <= width``."""
        self._add_sections(3, section, section + 1, (normal[0], normal[1], offset, width))

    def fill(self, box: Box, value: float) -> None:
        """One value everywhere in a box."""
        self._add(4, box, numbers=(value, 0, 0, 0))

    def run(self, volume: npt.NDArray[np.float32], scale: Scale) -> None:
        """Change one channel (Z, Y, X) in place, by amounts of its scale."""
        from volprep.kernels.intensity import filter_through_sections, run_sections

        if not self._steps:
            return
        if volume.shape != self.shape or volume.dtype != np.float32:
            raise ValueError(f"volume: {volume.dtype} {volume.shape}, wanted float32 {self.shape}")
        steps = np.array(self._steps, np.int64)
        numbers = np.array(self._numbers, np.float64)
        starts, weights = self._pools()
        longest = max(self.shape)
        scratch = np.empty((2 * longest, longest), np.float32) if self._bands else _NO_SCRATCH
        measures = np.array([scale.low, scale.span, scale.mean])
        begin = 0
        for n in [*self._through_sections(), len(steps)]:
            if n > begin:
                run_sections(
                    volume, steps[begin:n], numbers[begin:n], starts, weights, scratch, measures
                )
            if n < len(steps):
                _, *box, _, taps, at_start, at_weight = steps[n].tolist()
                length = box[1] - box[0]
                table = weights[at_weight : at_weight + taps * length].reshape(taps, length)
                first = starts[at_start : at_start + length]
                filter_through_sections(volume, np.array(box), first, table, scratch)
            begin = n + 1

    def _add_sections(
        self, code: int, first: int, last: int, numbers: tuple[float, float, float, float]
    ) -> None:
        _, height, width = self.shape
        self._steps.append((code, first, last, 0, height, 0, width, 0, 0, 0, 0))
        self._numbers.append(numbers)

    def _add(
        self,
        code: int,
        box: Box,
        extra: tuple[int, int, int, int] = (0, 0, 0, 0),
        numbers: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
    ) -> None:
        (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
        self._steps.append((code, z0, z1, y0, y1, x0, x1, *extra))
        self._numbers.append(numbers)

    def _through_sections(self) -> list[int]:
        """The steps that reach across sections, between which the rest runs fused."""
        return [n for n, step in enumerate(self._steps) if step[0] == 2 and step[7] == 0]

    def _pools(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        if not self._bands:
            return np.zeros(1, np.int64), np.zeros(1, np.float32)
        return (
            np.concatenate([band.starts for band in self._bands]),
            np.concatenate([band.weights.ravel() for band in self._bands]),
        )


_NO_SCRATCH = np.empty((1, 1), np.float32)


def _cells(length: int, factor: float) -> int:
    """How many cells `length` voxels fall into."""
    return min(length, max(1, round(length / factor)))


def _owners(length: int, cells: int) -> npt.NDArray[Any]:
    """The cell that each of `length` voxels falls into."""
    return (np.arange(length) * cells) // length


def _convolution(length: int, kernel: npt.NDArray[np.float64]) -> Band:
    radius = len(kernel) // 2
    at = np.arange(length)[:, None] + np.arange(-radius, len(kernel) - radius)
    period = max(2 * (length - 1), 1)
    mirrored = np.abs((at + length - 1) % period - (length - 1)) if length > 1 else at * 0
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.arange(length)[:, None], mirrored), kernel)
    return Band.of_matrix(matrix)
