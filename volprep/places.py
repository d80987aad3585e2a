"""Where data lie: paths, and URLs with a path's manners."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

__all__ = [
    "ARCHIVES", "SCHEMES", "RemotePath", "is_in_bucket", "is_remote", "path_of", "what_is_there",
]  # fmt: skip

#: What a URL that data are read from may begin with.
SCHEMES = ("s3", "gs", "http", "https")
#: Suffixes of files that are read as folders.
ARCHIVES = (".zip", ".ozx")
# pathlib takes two slashes for one: a URL that went through it is known by what is left. The
# format that Neuroglancer writes before a URL is told by what lies there, too.
_URL = re.compile(
    rf"(?:(?:precomputed|zarr|zarr2|zarr3|n5):/{{1,2}})?({'|'.join(SCHEMES)}):/{{1,2}}(?!/)(.*)",
    re.DOTALL,
)


class RemotePath(type(Path())):  # type: ignore[misc]
    """A file or folder behind a URL, where a path is wanted.

    Parts, names and suffixes are a path's; it is absolute, stays one when it is joined to a
    folder (``folder / remote`` is the remote one), and its text is the URL. What is there is
    seen when it is opened: it counts as there, and as neither a file nor a folder of this
    machine, so that whoever walks through folders passes it by.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return f"{self.parts[0]}//{'/'.join(self.parts[1:])}" if self.parts else ""

    def __fspath__(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def as_posix(self) -> str:
        """The URL."""
        return str(self)

    def relative_to(self, *other: Any, **options: Any) -> PurePosixPath:
        """The way from a folder above."""
        here = PurePosixPath(*self.parts)
        return here.relative_to(PurePosixPath(*path_of(other[0]).parts), **options)

    def __rtruediv__(self, other: object) -> RemotePath:
        return self

    def expanduser(self) -> RemotePath:
        """Itself."""
        return self

    def absolute(self) -> RemotePath:
        """Itself."""
        return self

    def resolve(self, strict: bool = False) -> RemotePath:
        """Itself: object stores have no links."""
        return self

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Taken for granted until it is opened."""
        return True

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Never one of this machine."""
        return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Never one of this machine."""
        return False

    @property
    def store(self) -> str:
        """The bucket or host: ``s3://bucket``."""
        return f"{self.parts[0]}//{self.parts[1] if len(self.parts) > 1 else ''}"

    @property
    def below(self) -> str:
        """The way from there, without slashes around it."""
        return "/".join(self.parts[2:])


def path_of(text: str | PurePath) -> Path:
    """The path or URL that a text means; of a URL that was taken for a path, the URL."""
    if isinstance(text, RemotePath):
        return text
    match = _URL.fullmatch(str(text))
    return Path(text) if match is None else RemotePath(f"{match[1]}://{match[2]}")


def is_remote(path: object) -> bool:
    """Whether a path is a URL."""
    return isinstance(path, RemotePath)


def is_in_bucket(path: Path) -> bool:
    """Whether a path is a URL below a bucket, which can be written to."""
    return is_remote(path) and path.parts[0] in ("s3:", "gs:") and len(path.parts) >= 3


def what_is_there(path: Path) -> str:
    """What to do about a path that leads nowhere: up to where it is right, and the nearest name.

    Parameters
    ----------
    path : Path
        Of nothing that exists.
    """
    there = path.absolute()
    while not there.parent.exists() and there.parent != there:
        there = there.parent
    try:
        names = [each.name for each in there.parent.iterdir()]
    except OSError:
        names = []
    near = get_close_matches(there.name.lower(), {name.lower() for name in names}, n=1)
    meant = next((name for name in names if near and name.lower() == near[0]), None)
    where = "" if there == path.absolute() else f": {there.parent} holds no {there.name}"
    return f"check the path{where}" + ("" if meant is None else f"; did you mean {meant}?")
