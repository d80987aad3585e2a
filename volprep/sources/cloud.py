"""Chunked volumes in object stores, behind web servers and in zip archives, over tensorstore.

The one room of tensorstore. What readers ask of a place is answered here for places in a
store; `StoreVolume` hands voxels on. Requests that fail are made again with growing pauses; what
fails still is an error that names the place. Only what the store says is absent counts as
absent and is read as the fill value.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from volprep.errors import MissingDependencyError, SourceError
from volprep.findings import Note
from volprep.geometry import Box
from volprep.places import ARCHIVES, RemotePath, is_remote
from volprep.sources.axes import Layout
from volprep.sources.base import Array, Volume

__all__ = [
    "StoreVolume",
    "Stored",
    "contents",
    "entries",
    "lists_nothing",
    "metadata_of",
    "read",
    "spec_of",
]

#: Seconds that a store may take to answer, beside what the bytes take at a slow line's rate.
PATIENCE = 120.0
_SLOWEST = 500_000  # bytes a second
_RETRIES = {"max_retries": 5, "initial_delay": "0.3s", "max_delay": "8s"}
_CACHE_BYTES = 256 * 2**20
#: Objects that are asked for one by one, of more as many that lie evenly among them.
MOST_ASKED = 20_000
_AT_ONCE = 256
_CLAIM_BYTES = 2**34  # a volume beyond this must have some of its chunks stored
_CLAIM_LOOKS = 1000


class Stored(NamedTuple):
    """An object of a store: its name, and what the store calls its present content."""

    name: str
    generation: str


def read(place: Path) -> bytes | None:
    """All bytes of an object; None where the store says that there is none."""
    root, key = _split(place)
    if not key:
        return None
    found = _answer(place, _store(root).read(key))
    return bytes(found.value) if found.state == "value" else None


def entries(place: Path) -> list[tuple[str, bool]]:
    """(name, is_folder) of what lies directly below a place."""
    found: dict[str, bool] = {}
    for name in _names(place):
        first, slash, _ = name.partition("/")
        if first:
            found[first] = found.get(first, False) or bool(slash)
    return sorted(found.items())


def contents(place: Path) -> list[Stored] | None:
    """Every object below a place with its generation; None where the store lists nothing.

    Of more than `MOST_ASKED` objects as many have a generation, evenly chosen, and those that
    are no chunks (JSON); the others have an empty one.
    """
    try:
        names = sorted(_names(place))
    except SourceError as error:
        if lists_nothing(error):
            return None
        raise
    step = max(1, -(-len(names) // MOST_ASKED))
    asked = [n for i, n in enumerate(names) if i % step == 0 or n.endswith(_METADATA)]
    root, key = _split(place)
    store, lead = _store(root), f"{key}/" if key else ""
    stamps = {}
    for some in _batches(asked):
        waiting = [(n, store.read(f"{lead}{n}", byte_range=slice(0, 1))) for n in some]
        for name, answer in waiting:
            stamps[name] = _answer(place, answer).stamp.generation.hex()
    return [Stored(name, stamps.get(name, "")) for name in names]


def lists_nothing(error: SourceError) -> bool:
    """Whether an error says that a store does not list what it holds."""
    cause = error.__cause__
    return isinstance(cause, NotImplementedError) and "listing" in str(cause)


def metadata_of(place: Path) -> list[tuple[str, str]]:
    """The metadata of a container by name and hash, those that are reached without a listing."""
    folders, found = ["", "0", "s0", "labels"], []
    for folder in folders:
        for name in ("zarr.json", ".zarray", ".zattrs", ".zgroup", "attributes.json", "info"):
            key = f"{folder}/{name}".lstrip("/")
            data = read(place / key)
            if data is not None:
                found.append((key, hashlib.sha256(data).hexdigest()))
    return found


_METADATA = (".json", ".zarray", ".zattrs", ".zgroup", ".zmetadata", "info")


def spec_of(place: Path) -> dict[str, Any]:
    """A place as the key-value store of tensorstore that begins there."""
    root, key = _split(place)
    spec = _root_spec(root) if is_remote(place) or root.suffix.lower() in ARCHIVES else {}
    if not spec:
        return {"driver": "file", "path": f"{place.resolve()}/"}
    return {**spec, "path": f"{key}/" if key else ""}


class StoreVolume(Volume):
    """One array of a store, as tensorstore reads it; chunks that a box touches are fetched at once.

    Parameters
    ----------
    path : Path
        As the user gave it.
    layout : Layout
        Of the array in C order (the last axis is the one that runs fastest).
    dtype : dtype-like
    place : Path
        Where the array, or for precomputed volumes its ``info``, lies.
    driver : str
        Of tensorstore.
    reversed_axes : bool
        Whether tensorstore gives the axes in the opposite order (N5, precomputed).
    options : dict
        More for tensorstore: ``scale_index``.
    **rest
        As for `Volume`.
    """

    def __init__(
        self,
        path: Path,
        layout: Layout,
        dtype: Any,
        *,
        place: Path,
        driver: str,
        reversed_axes: bool = False,
        options: dict[str, Any] | None = None,
        **rest: Any,
    ) -> None:
        self._place, self._driver, self._reversed = place, driver, reversed_axes
        self._options = dict(options or {})
        root, _ = _split(place)
        if root.parts[0] in ("http:", "https:") and root.suffix.lower() not in ARCHIVES:
            text = "lies on a web server, which lists nothing: its voxels are not known again"
            rest["notes"] = (*rest.get("notes", ()), Note("chunks-unlisted", text))
        super().__init__(path, layout, dtype, **rest)

    def missing_chunks(self) -> tuple[int, int]:
        """As `Volume.missing_chunks`.

        The store is asked for each chunk; of more than 20,000 for as many that lie evenly
        among them, and the second number is how many were asked for.
        """
        array = self._opened()
        grid = _grid(array)
        total = math.prod(grid)
        looks = min(total, MOST_ASKED)
        return looks - self._there(array, grid, looks), looks

    def check_claim(self) -> None:
        """Refuse a size that the metadata claim and hardly a chunk stands behind."""
        if self.nbytes <= _CLAIM_BYTES:
            return
        array = self._opened()
        grid = _grid(array)
        looks = min(math.prod(grid), _CLAIM_LOOKS)
        if self._there(array, grid, looks):
            return
        raise SourceError(
            self.name,
            f"claims {math.prod(self.shape)} voxels, and none of {looks} of its chunks is there",
            "its metadata are wrong, or it was never filled; save the part that holds data",
        )

    def _there(self, array: Any, grid: Sequence[int], looks: int) -> int:
        """How many of some chunks, evenly chosen, are stored."""
        total, there = math.prod(grid), 0
        size = array.chunk_layout.read_chunk.shape
        for some in _batches(range(looks)):
            waiting = []
            for n in some:
                index = np.unravel_index(n * total // looks, grid)
                start = [int(i) * c for i, c in zip(index, size, strict=True)]
                cut = tuple(
                    slice(a, min(a + c, full))
                    for a, c, full in zip(start, size, array.shape, strict=True)
                )
                waiting.append(array[cut].storage_statistics(query_not_stored=True))
            there += sum(not _answer(self.name, w).not_stored for w in waiting)
        return there

    def _open(self) -> Any:
        _load()
        import tensorstore as ts

        place = spec_of(self._place)
        if self._driver == "neuroglancer_precomputed":
            # Asked which chunks are there, it puts the path in front of their names twice.
            place = {"driver": "kvstack", "layers": [{"base": place}]}
        spec = {"driver": self._driver, "kvstore": place, **self._options}
        opening = ts.open(
            spec,
            context=_context(),
            open=True,
            read=True,
            recheck_cached_data="open",
            recheck_cached_metadata="open",
        )
        array = _answer(self.name, opening)
        array = array[ts.d[:].translate_to[0]]
        array = array.T if self._reversed else array
        if tuple(array.shape) != self._layout.stored:
            raise SourceError(
                self.name,
                f"is {array.shape} in the store and {self._layout.stored} by its metadata",
                "it was changed while it was read: run again",
            )
        return array

    def _read(self, box: Box) -> Array:
        cut = self._layout.select(box)
        size = math.prod(c.stop - c.start for c in cut) * self._stored_dtype.itemsize
        block = _answer(self.name, self._opened()[cut].read(order="C"), size)
        return self._layout.arrange(np.asarray(block))


def _load() -> None:
    """Load tensorstore; MissingDependencyError names the extra.

    Raises
    ------
    SourceError
        In a process that was forked from one that has used it: its threads did not come
        along, and whoever waited for them would wait for ever.
    """
    global _owner
    try:
        import tensorstore  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("tensorstore", "cloud") from error
    if _owner is None:
        _owner = os.getpid()
    if _owner != os.getpid():
        raise SourceError(
            "tensorstore",
            "was used before this process was forked, and does not work in it",
            'start the workers with multiprocessing_context="spawn"',
        )


_owner: int | None = None


@lru_cache(1)
def _context() -> Any:
    import tensorstore as ts

    retries = {f"{kind}_request_retries": _RETRIES for kind in ("http", "s3", "gcs")}
    return ts.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}, **retries})


def _store(root: Path) -> Any:
    _load()
    return _opened_store(json.dumps(_root_spec(root), sort_keys=True))


@lru_cache(64)
def _opened_store(spec: str) -> Any:
    import tensorstore as ts

    return ts.KvStore.open(json.loads(spec), context=_context()).result(PATIENCE)


def _split(place: Path) -> tuple[Path, str]:
    """The store that a place lies in, and its key there."""
    for folder in (place, *place.parents):
        if folder.suffix.lower() in ARCHIVES and (is_remote(folder) or folder.is_file()):
            key = place.relative_to(folder).as_posix()
            return folder, "" if key == "." else key
    if isinstance(place, RemotePath):
        return RemotePath(place.store), place.below
    return place, ""


def _root_spec(root: Path) -> dict[str, Any]:
    """The key-value store of a bucket, a host or an archive."""
    if root.suffix.lower() in ARCHIVES:
        base = _object_spec(root) if is_remote(root) else {
            "driver": "file", "path": str(root.resolve()),
        }  # fmt: skip
        return {"driver": "zip", "base": base}
    return _object_spec(root)


def _object_spec(place: Path) -> dict[str, Any]:
    scheme = place.parts[0].rstrip(":")
    host = place.parts[1] if len(place.parts) > 1 else ""
    key = "/".join(place.parts[2:])
    if not host:
        raise SourceError(place, "names no bucket or host", f"give {scheme}://NAME/...")
    if scheme in ("http", "https"):
        return {"driver": "http", "base_url": f"{scheme}://{host}", "path": f"/{key}"}
    if scheme == "gs":
        return {"driver": "gcs", "bucket": host, "path": key}
    spec: dict[str, Any] = {"driver": "s3", "bucket": host, "path": key}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        spec |= {"endpoint": endpoint, "aws_region": region or "us-east-1"}
    return {**spec, "aws_credentials": {"type": _aws_credentials()}}


def _aws_credentials() -> str:
    """Where credentials come from; of nobody's a public bucket is read without any.

    The library's own search ends at a web service of Amazon's machines, which elsewhere is
    waited for in vain.
    """
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return "environment"
    told = ("AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_SHARED_CREDENTIALS_FILE")  # fmt: skip
    files = (Path.home() / ".aws" / name for name in ("credentials", "config"))
    machine = Path("/sys/devices/virtual/dmi/id/sys_vendor")
    try:
        amazon = "Amazon" in machine.read_text()
    except OSError:
        amazon = False
    known = amazon or any(map(os.environ.get, told)) or any(file.is_file() for file in files)
    return "default" if known else "anonymous"


def _names(place: Path) -> list[str]:
    """The names of all objects below a place, from there on."""
    root, key = _split(place)
    store = _store(root)
    lead = f"{key}/" if key else ""
    import tensorstore as ts

    within = ts.KvStore.KeyRange(lead, f"{key}0") if lead else ts.KvStore.KeyRange()  # 0 follows /
    found = _answer(place, store.list(within, strip_prefix_length=len(lead.encode())))
    return [name.decode("utf-8", "surrogateescape") for name in found]


def _answer(place: object, future: Any, size: int = 0) -> Any:
    """What a request brings, waited for so long as a slow line may take; errors name the place."""
    try:
        return future.result(timeout=PATIENCE + size / _SLOWEST)
    except TimeoutError as error:
        future.cancel()
        raise SourceError(
            place, "the store has not answered in time", "check the network, and run again"
        ) from error
    except (ValueError, OSError, NotImplementedError, RuntimeError, KeyError) as error:
        _refuse(place, error)


_MEMBER = re.compile(r'Error parsing object member "(.*?)": ')
_NEWS = re.compile(r"(?:Error parsing [^:]*: )*(.*?)(?: \[tensorstore_spec=.*)?$")


def _refuse(place: object, error: Exception) -> NoReturn:
    text = "".join(c if c.isprintable() else " " for c in str(error))
    text = " ".join(text.split())
    keys = _MEMBER.findall(text)
    if keys:  # in metadata, which are not damaged because a word of them is not known here
        news = _NEWS.match(text[text.rindex(f'member "{keys[-1]}": ') :].partition('": ')[2])
        said = (news[1] if news else text).replace("is not registered", "is not known here")
        raise SourceError(
            place,
            f"its metadata cannot be used: {'.'.join(keys)}: {said}"[:300],
            "correct them, or convert the volume to a form that is read (volprep formats)",
        ) from error
    text = text[:300]
    if isinstance(error, NotImplementedError) and "listing" in text:
        raise SourceError(
            place, "lies in a store that lists nothing", "give the URL of an image or array itself"
        ) from error
    if "PERMISSION_DENIED" in text or "UNAUTHENTICATED" in text:
        raise SourceError(
            place,
            f"the store refuses to give it ({text})",
            "check its name and your credentials; a bucket that may not be listed refuses what is "
            "not there, too",
        ) from error
    for word in ("ABORTED", "UNAVAILABLE", "DEADLINE", "retry"):
        if word in text:
            raise SourceError(
                place,
                f"cannot be fetched ({text})",
                "check the network and the server, and run again",
            ) from error
    raise SourceError(
        place, f"cannot be read ({text})", "the file is damaged, cut short, or of another format"
    ) from error


def _grid(array: Any) -> tuple[int, ...]:
    size = array.chunk_layout.read_chunk.shape
    return tuple(-(-n // c) for n, c in zip(array.shape, size, strict=True))


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(items)
    while some := list(itertools.islice(rest, _AT_ONCE)):
        yield some
