"""Small files of a patch set, written whole or not at all, and hashes of what went in."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from volprep.errors import StoreError

__all__ = [
    "REPAIR",
    "content_hash",
    "describe_file",
    "load_json",
    "unreadable",
    "write_bytes",
    "write_json",
    "write_text",
]

REPAIR = "mend it with: volprep repair"
_LIMITS = {
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "free some memory",
    errno.ENOSPC: "free some space",
}


def content_hash(*parts: object) -> str:
    """SHA-256 of JSON values, texts or bytes, in order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def describe_file(path: Path) -> dict[str, Any]:
    """Size, mtime and SHA-256 of a file; of a folder, of all files in it by name."""
    digest, size, mtime = hashlib.sha256(), 0, 0.0
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
        state = file.stat()
        size, mtime = size + state.st_size, max(mtime, state.st_mtime)
    return {"path": str(path), "size": size, "mtime": mtime, "sha256": digest.hexdigest()}


def write_json(path: Path, content: object) -> None:
    """Write JSON whole or not at all; numbers stay exact, NaN is refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then rename it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(path)


def load_json(path: Path) -> dict[str, Any]:
    """A JSON mapping that volprep wrote; StoreError where it is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise StoreError(f"{path}: damaged ({error}); {REPAIR} the set's folder") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path}: damaged (no mapping); {REPAIR} the set's folder")
    return content


def unreadable(path: Path, error: OSError, folder: object = "the set's folder") -> StoreError:
    """What it means that a file of a set cannot be read: a limit of the machine is no damage."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return StoreError(f"{path}: missing; {REPAIR} {folder}")
    what = error.strerror or str(error)
    todo = _LIMITS.get(error.errno or 0, "look at its rights, the disk and the network")
    return StoreError(f"{path}: cannot be read ({what}); {todo}")
