"""Hashes of what went in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["content_hash", "describe_file"]


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
