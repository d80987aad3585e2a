"""Several files as the channels of one image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from volprep.cases.derived import DerivedVolume
from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.sources import Array, Volume

__all__ = ["ChannelFiles"]


class ChannelFiles(DerivedVolume):
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
        spacing = known[0].spacing if known else None
        channels = sum(part.shape[0] for part in parts)
        super().__init__(parts, channels, dtype, key=None, spacing=spacing)

    def _made(self, blocks: Sequence[Array], box: Box) -> Array:
        out = np.empty((self.shape[0], *box.shape), self.dtype)
        return np.concatenate(blocks, out=out, casting="same_kind")


def _same(name: str, what: str, found: object, wanted: object, first: str) -> None:
    if found != wanted:
        raise SourceError(
            name, f"{what} is {found}", f"as a channel it needs {wanted}, which {first} has"
        )
