"""What a file really is, by its first bytes: asked before a reader is blamed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from zipfile import is_zipfile

from volprep.errors import SourceError
from volprep.places import ARCHIVES, what_is_there
from volprep.sources.names import MARKS
from volprep.sources.place import entries, read

__all__ = ["check_place", "content_error", "stored_kind"]

_HEAD = 1024
#: First bytes to what they begin, the kind of reader for it, and the suffix it should have.
_MAGIC: tuple[tuple[bytes, str, str, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture", "pictures", ".png"),
    (b"\xff\xd8\xff", "a JPEG picture", "pictures", ".jpg"),
    (b"II*\0", "a TIFF file", "tiff", ".tif"),
    (b"MM\0*", "a TIFF file", "tiff", ".tif"),
    (b"II+\0", "a BigTIFF file", "tiff", ".tif"),
    (b"MM\0+", "a BigTIFF file", "tiff", ".tif"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "hdf5", ".h5"),
    (b"\x93NUMPY", "a NumPy file", "npy", ".npy"),
    (b"PK\x03\x04", "a zip archive", "npz", ".npz"),
    (b"NRRD000", "a NRRD file", "nrrd", ".nrrd"),
    (b"ObjectType ", "a MetaImage file", "metaimage", ".mha"),
    (b"ZISRAWFILE", "a Zeiss CZI file", "czi", ".czi"),
    (b"\xda\xce\xbe\n", "a Nikon ND2 file", "nd2", ".nd2"),
    (b"\x1f\x8b", "a gzipped file", "nifti", ".nii.gz"),
    (b"\x5c\x01\0\0", "a NIfTI file", "nifti", ".nii"),
    (b"\0\0\x01\x5c", "a NIfTI file", "nifti", ".nii"),
    (b"BM", "a BMP picture", "", ""),
    (b"GIF8", "a GIF picture", "", ""),
    (b"%PDF", "a PDF document", "", ""),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "", ""),
    (b"\xfd7zXZ\0", "an xz file", "", ""),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "", ""),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", "", ""),
)
#: Kinds of files that are text, or begin with some.
_TEXTS = ("tiles", "nrrd", "metaimage")
_LFS = b"version https://git-lfs.github.com/spec/"


def check_place(path: Path) -> None:
    """Refuse what is no file and no folder, before anything waits for it.

    Raises
    ------
    SourceError
        If it is not there, a link leads nowhere or to itself, or it is a pipe, a socket or a
        device: to open one of these can wait for ever.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            target = os.readlink(path)
            raise SourceError(
                path, f"is a link to {target}, which is not there", "mend the link"
            ) from None
        raise SourceError(path, "does not exist", what_is_there(path)) from None
    except NotADirectoryError:
        raise SourceError(path, "does not exist: a part of its path is a file") from None
    except PermissionError:
        raise SourceError(path, "may not be read", "check its permissions") from None
    except OSError as error:  # ELOOP, ENAMETOOLONG
        loops = error.errno == errno.ELOOP
        what = "is a link that leads back to itself" if loops else f"{error.strerror}"
        raise SourceError(path, what, "mend the link, or check the path") from None
    except ValueError:  # a null byte
        raise SourceError(path, "is no path that a file can have", "check the path") from None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return
    kinds = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}
    what = kinds.get(stat.S_IFMT(mode), "device")
    raise SourceError(path, f"is a {what} and no file", "leave it out, or give a file")


def stored_kind(path: Path, key: str | None) -> tuple[str, Path]:
    """The reader for what lies behind a URL or in an archive, and where it begins.

    Parameters
    ----------
    path : Path
    key : str or None
        An array in it: a container may have no metadata of its own.

    Raises
    ------
    SourceError
        If no metadata of a chunked format is there.
    """
    places = [path]
    if path.suffix.lower() in ARCHIVES and path.is_file() and not is_zipfile(path):
        broken = SourceError(path, "is no whole zip archive", "it is cut short: copy it again")
        raise content_error(path, "archive", broken)
    if path.suffix.lower() in ARCHIVES:  # of a folder they hold the folder, or what is in it
        inside = [e.name for e in entries(path) if e.is_folder]
        places += [path / inside[0]] if len(inside) == 1 else []
    for place in places:
        for folder in (place, place / key.strip("/")) if key else (place,):
            for kind, marks in MARKS.items():
                for name, word in marks.items():
                    data = read(folder / name)
                    if data is not None and (word in data or kind == "n5"):
                        return kind, place
    raise SourceError(
        path,
        "holds no Zarr, N5 or precomputed volume",
        "check the path; files of other formats are read from a disk: copy them",
    )


def content_error(path: Path, kind: str, error: SourceError) -> SourceError:
    """The error to raise for a file that a reader refused: what it is, where that is the cause.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        The reader that its suffix asked for.
    error : SourceError
        What that reader said.
    """
    if not path.is_file():
        return error
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return error
    if path.suffix.lower() in ARCHIVES and head.startswith(b"PK"):
        return error
    # Two formats that one module reads.
    told = _content(head, "npz" if path.suffix.lower() == ".npz" else kind)
    return error if told is None else SourceError(path, *told)


def _content(head: bytes, kind: str) -> tuple[str, str] | None:
    """What the first bytes are and what to do; None where they fit the reader, or are unknown."""
    if not head:
        return "is empty", "copy or save it again"
    if not head.strip(b"\0"):
        return "begins with nothing but zeros", "the copy broke off: copy it again"
    if head.startswith(_LFS):
        return (
            "is a Git LFS pointer: the file itself was never fetched",
            "fetch it with: git lfs pull",
        )
    for magic, what, reader, suffix in _MAGIC:
        if head.startswith(magic):
            if reader == kind or (reader, kind) == ("hdf5", "imaris"):
                return None
            wanted = f"rename it to end in {suffix}" if suffix else "save it in a format of volumes"
            return f"is {what} by its content", wanted
    if head[344:347] in (b"n+1", b"ni1"):
        return None if kind == "nifti" else ("is a NIfTI file by its content", "rename it to .nii")
    if head[208:211] == b"MAP" and kind != "mrc":
        return "is an MRC file by its content", "rename it to end in .mrc"
    return _text(head, kind)


def _text(head: bytes, kind: str) -> tuple[str, str] | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return (
            "is a web page (HTML): the download gave a page in place of the file",
            "download it again, signed in where that is needed",
        )
    if start.startswith((b"<?xml", b"<")):
        return "is XML text", "give the file that holds the voxels"
    if kind in _TEXTS:
        return None
    try:
        words = head.decode("utf-8", errors="strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        return None
    if all(c.isprintable() or c in "\t\r\n" for c in words):
        return f"is text ({words.strip()[:40]!r} ...)", "give the file that holds the voxels"
    return None
