"""What the JSON of chunked formats says, word by word: what is not known is named as such.

A codec, a type of numbers or an extension that is not read here is no damage of the file. Each
is refused with its key and its value, and with what would be read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from volprep.errors import SourceError
from volprep.sources.place import read

__all__ = [
    "check_codecs",
    "member",
    "named",
    "number_type",
    "read_json",
    "sizes_of",
    "unusable",
]

#: The packages that bring codecs, by what their names hold.
_PACKAGES = {
    "pcodec": "pcodec", "pco": "pcodec", "zfpy": "zfpy", "zfp": "zfpy", "crc32c": "crc32c",
    "wavpack": "wavpack-numcodecs", "flac": "flac-numcodecs",
}  # fmt: skip
#: Codecs of objects and texts: there are no voxels in what they give, and `pickle` runs what it
#: reads.
_NO_NUMBERS = {
    "pickle", "json", "json2", "msgpack", "msgpack2", "categorize", "base64", "vlen-utf8",
    "vlen-bytes", "vlen-array",
}  # fmt: skip
_MOST_BLOCK = 2**40


def read_json(path: Path) -> dict[str, Any] | None:
    """A metadata document; None where there is none.

    Raises
    ------
    SourceError
        If it is no JSON object.
    """
    data = read(path)
    if data is None:
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise SourceError(
            path.parent, f"its {path.name} is no JSON ({reason})", "copy or save it again"
        ) from error
    if not isinstance(document, dict):
        raise SourceError(path.parent, f"its {path.name} is no JSON object", "copy it again")
    return document


def unusable(place: object, key: str, value: Any, wanted: str) -> SourceError:
    """The error for a key of metadata whose value cannot be used."""
    text = repr(value)
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return SourceError(place, f"its metadata say {key} = {shown}", wanted)


def member(place: object, document: Mapping[str, Any], key: str) -> Any:
    """What stands under a key that must be there."""
    if key not in document:
        raise SourceError(place, f"its metadata do not say {key}", "copy or save it again")
    return document[key]


def named(place: object, key: str, value: Any) -> tuple[str, Mapping[str, Any]]:
    """Name and configuration of what Zarr 3 may write as a name alone, too."""
    if isinstance(value, str):
        return value, {}
    setup = value.get("configuration") or {} if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise unusable(place, key, value, "give it a name")
    if not isinstance(setup, dict):
        raise unusable(place, f"{key}.configuration", setup, "give an object")
    return value["name"], setup


def number_type(place: object, word: Any) -> np.dtype[Any]:
    """The NumPy type that metadata name."""
    try:
        dtype: np.dtype[Any] = np.dtype(word)
        return dtype
    except (TypeError, ValueError) as error:
        raise SourceError(
            place, f"holds {word}", "give integers or floating point numbers up to 64 bits"
        ) from error


def sizes_of(place: object, key: str, value: Any, *, least: int = 0) -> tuple[int, ...]:
    """Whole numbers from a list of them."""
    whole = isinstance(value, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and n >= least for n in value
    )
    if not whole or math.prod(value) > (2**63 if least == 0 else _MOST_BLOCK):
        raise unusable(place, key, value, f"give whole numbers from {least} on, that can be")
    return tuple(value)


def check_codecs(place: object, names: Mapping[str, str]) -> None:
    """Refuse codecs that zarr-python cannot decode here, before anything is read.

    Parameters
    ----------
    place : object
        For messages.
    names : mapping of str to str
        Each codec, and what it is: ``filter``, ``compressor``, ``codec``.

    Raises
    ------
    SourceError
        With the name of the codec, and the package to install where there is one.
    """
    for name, what in names.items():
        bare = name.removeprefix("numcodecs.")
        if bare in _NO_NUMBERS:
            raise SourceError(
                place, f"its {what} {name!r} is one of objects or texts", "give an array of numbers"
            )
        if not _is_known(name, version=3 if what == "codec" else 2):
            package = _PACKAGES.get(bare)
            missing = package is not None and find_spec(package) is None
            raise SourceError(
                place,
                f"its {what} {name!r} is not known here",
                f"install it with: pip install {package}"
                if missing
                else "install the package that brings it, or save the array with blosc, zstd,"
                " gzip or lz4",
            )


def _is_known(name: str, *, version: int) -> bool:
    if version == 3:
        from zarr.registry import get_codec_class

        package = _PACKAGES.get(name.removeprefix("numcodecs."))
        try:
            get_codec_class(name)
        except (KeyError, ValueError):  # older zarr-python says the one, newer the other
            return False
        return (
            not name.startswith("numcodecs.") or package is None or find_spec(package) is not None
        )
    from numcodecs.registry import codec_registry, entries

    if name.startswith("imagecodecs_") and name not in codec_registry:
        import imagecodecs.numcodecs

        imagecodecs.numcodecs.register_codecs(verbose=False)
    return name in codec_registry or name in entries
