"""Hashes of what went in."""

from __future__ import annotations

import hashlib
import json

__all__ = ["content_hash"]


def content_hash(*parts: object) -> str:
    """SHA-256 of JSON values, texts or bytes, in order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
