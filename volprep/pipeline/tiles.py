"""`volprep tiles-json`: the JSON of a tiled volume, beside or above its tiles."""

from __future__ import annotations

import os
from pathlib import Path

from volprep.errors import SourceError
from volprep.files import write_json
from volprep.sources import describe_tiles

__all__ = ["write_tiles_json"]


def write_tiles_json(
    folder: Path, out: Path, *, missing: str = "error"
) -> tuple[tuple[int, int, int], list[str]]:
    """Write the JSON of the tiles in a folder.

    Parameters
    ----------
    folder : Path
    out : Path
        In the folder, or in one above it, since a JSON may name what lies below it.
    missing : {'error', 'fill'}
        What reading does where a tile is missing.

    Returns
    -------
    shape : (Z, Y, X)
    notes : list of str
        What is not regular about the tiles.

    Raises
    ------
    SourceError
        If the tiles cannot be understood, or `out` does not lie above them.
    """
    if not folder.is_dir():
        raise SourceError(folder, "is no folder", "give the folder of the tiles")
    description, notes = describe_tiles(folder, missing=missing)
    prefix = Path(os.path.relpath(folder.resolve(), out.resolve().parent)).as_posix()
    if prefix.startswith(".."):
        raise SourceError(
            out,
            f"does not lie above the tiles in {folder}",
            "write it there, since a JSON may only name what lies in its folder or below",
        )
    if prefix != ".":
        description["image"] = [f"{prefix}/{name}" for name in description["image"]]
    write_json(out, description)
    return (description["depth"], description["height"], description["width"]), notes
