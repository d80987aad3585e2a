"""Several files as the channels of one image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from volprep.errors import SourceError
from volprep.geometry import Box, Shape3
from volprep.sources import Volume
from volprep.sources.axes import Layout
from volprep.sources.base import SLAB_BYTES, Array

__all__ = ["ChannelFiles"]


class ChannelFiles(Volume):
    """Volumes of one shape, read as one with their channels in the order given.

    Parameters
    ----------
    parts : sequence of Volume
        All of one (Z, Y, X). Different dtypes meet in the one that holds them all.

    Raises
    ------
    SourceError
        If the shapes or the known spacings differ, or no integer dtype holds
        the integers of every part.
    """

    def __init__(self, parts: Sequence[Volume]) -> None:
        first = parts[0]
        for part in parts[1:]:
            _same(part.name, "shape (Z, Y, X)", part.shape[1:], first.shape[1:], first.name)
        known = [part for part in parts if part.spacing is not None]
        for part in known[1:]:
            if not np.allclose(part.spacing or 0, known[0].spacing or 0, rtol=1e-3, atol=0):
                _same(part.name, "spacing", part.spacing, known[0].spacing, known[0].name)
        dtype = np.result_type(*[part.dtype for part in parts])
        if dtype.kind == "f" and all(part.dtype.kind in "iu" for part in parts):
            raise SourceError(
                first.name,
                f"its channels are {', '.join(str(part.dtype) for part in parts)}",
                "save them in one dtype",
            )
        flat = max(part.ndim_spatial for part in parts) == 2
        channels = sum(part.shape[0] for part in parts)
        stored = (channels, *first.shape[2 if flat else 1 :])
        layout = Layout("CYX" if flat else "CZYX", stored)
        notes = [note for part in parts for note in part.notes]
        super().__init__(
            first.path,
            layout,
            dtype,
            spacing=known[0].spacing if known else None,
            chunks=_coarsest(parts),
            notes=notes,
        )
        self.parts = tuple(parts)

    @property
    def sequential(self) -> bool:
        """Whether one of the files can only be read from its beginning."""
        return any(part.sequential for part in self.parts)

    def slabs(
        self, depth: int | None = None, *, max_bytes: int = SLAB_BYTES
    ) -> Iterator[tuple[Box, Array]]:
        """As `Volume.slabs`; all files are walked through side by side."""
        boxes = self.slab_boxes(depth, max_bytes=max_bytes)
        if boxes[0].shape[1:] != self.shape[2:]:
            yield from super().slabs(depth, max_bytes=max_bytes)
            return
        walks = [part.slabs(boxes[0].shape[0]) for part in self.parts]
        for box, *blocks in zip(boxes, *walks, strict=True):
            yield box, np.concatenate([block for _, block in blocks]).astype(self.dtype, copy=False)

    def close(self) -> None:
        """Let go of the open files."""
        for part in self.parts:
            part.close()

    def _read(self, box: Box) -> Array:
        out = np.empty((self.shape[0], *box.shape), self.dtype)
        start = 0
        for part in self.parts:
            out[start : start + part.shape[0]] = part.read(box)
            start += part.shape[0]
        return out


def _same(name: str, what: str, found: object, wanted: object, first: str) -> None:
    if found != wanted:
        raise SourceError(
            name, f"{what} is {found}", f"as a channel it needs {wanted}, which {first} has"
        )


def _coarsest(parts: Sequence[Volume]) -> Shape3:
    z, y, x = (max(part.chunks[axis] for part in parts) for axis in range(3))
    return z, y, x
