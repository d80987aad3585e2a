"""Objects of stores: what lies behind URLs and in zip archives, over tensorstore.

The one room of tensorstore. Requests that fail are made again with growing pauses; what fails
still is an error that names the place. Only what the store says is absent counts as absent.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from volprep.errors import MissingDependencyError, SourceError
from volprep.places import ARCHIVES, RemotePath, is_remote

__all__ = [
    "METADATA",
    "MOST_ASKED",
    "Stored",
    "answer",
    "batches",
    "contents",
    "entries",
    "is_forked",
    "listed",
    "lists_nothing",
    "open_array",
    "read",
    "remove",
    "spec_of",
    "split",
    "write",
]

#: Seconds that a store may take to answer, beside what the bytes take at a slow line's rate.
PATIENCE = 120.0
_SLOWEST = 500_000  # bytes a second
_RETRIES = {"max_retries": 5, "initial_delay": "0.3s", "max_delay": "8s"}
_CACHE_BYTES = 256 * 2**20
#: Objects that are asked for one by one, of more as many that lie evenly among them.
MOST_ASKED = 20_000
_AT_ONCE = 256
#: What metadata of volumes are called.
METADATA = (".json", ".zarray", ".zattrs", ".zgroup", ".zmetadata", "info")


class Stored(NamedTuple):
    """An object of a store: its name, and what the store calls its present content."""

    name: str
    generation: str


def read(place: Path, start: int | None = None, stop: int | None = None) -> bytes | None:
    """The bytes of an object, or some of them; None where the store says that there are none."""
    root, key = split(place)
    if not key:
        return None
    part = {} if start is None else {"byte_range": slice(start, stop)}
    waiting = _store(root).read(key, **part)
    try:
        found = answer(place, waiting)
    except SourceError as error:
        if part and "OUT_OF_RANGE" in str(error.__cause__):
            return None
        raise
    return bytes(found.value) if found.state == "value" else None


def write(place: Path, data: bytes) -> None:
    """Put an object; it is there whole, or the one before it is. SourceError if it cannot be."""
    root, key = split(place)
    answer(place, _store(root).write(key, data), len(data))


def remove(place: Path) -> None:
    """Remove an object; nothing where there is none."""
    root, key = split(place)
    answer(place, _store(root).write(key, None))


def open_array(name: object, place: Path, driver: str, options: dict[str, Any]) -> Any:
    """An array as tensorstore reads it, its first voxel at 0.

    Parameters
    ----------
    name : object
        For messages.
    place : Path
        Where the array, or for precomputed volumes its ``info``, lies.
    driver : str
    options : dict
        More for tensorstore: ``scale_index``.
    """
    _load()
    import tensorstore as ts

    store = spec_of(place)
    if driver == "neuroglancer_precomputed":
        # Asked which chunks are there, it puts the path in front of their names twice.
        store = {"driver": "kvstack", "layers": [{"base": store}]}
    try:
        opening = ts.open(
            {"driver": driver, "kvstore": store, **options},
            context=_context(),
            open=True,
            read=True,
            recheck_cached_data="open",
            recheck_cached_metadata="open",
        )
    except ValueError as error:  # of the specification itself
        _refuse(name, error)
    return answer(name, opening)[ts.d[:].translate_to[0]]


def entries(place: Path) -> list[tuple[str, bool]]:
    """(name, is_folder) of what lies directly below a place."""
    found: dict[str, bool] = {}
    for name in listed(place):
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
        names = sorted(listed(place))
    except SourceError as error:
        if lists_nothing(error):
            return None
        raise
    step = max(1, -(-len(names) // MOST_ASKED))
    asked = [n for i, n in enumerate(names) if i % step == 0 or n.endswith(METADATA)]
    root, key = split(place)
    store, lead = _store(root), f"{key}/" if key else ""
    stamps = {}
    for some in batches(asked):
        waiting = [(n, store.read(f"{lead}{n}", byte_range=slice(0, 1))) for n in some]
        for name, found in waiting:
            stamps[name] = answer(place, found).stamp.generation.hex()
    return [Stored(name, stamps.get(name, "")) for name in names]


def lists_nothing(error: SourceError) -> bool:
    """Whether an error says that a store does not list what it holds."""
    cause = error.__cause__
    return isinstance(cause, NotImplementedError) and "listing" in str(cause)


def spec_of(place: Path) -> dict[str, Any]:
    """A place as the key-value store of tensorstore that begins there."""
    root, key = split(place)
    spec = _root_spec(root) if is_remote(place) or root.suffix.lower() in ARCHIVES else {}
    if not spec:
        return {"driver": "file", "path": f"{place.resolve()}/"}
    return {**spec, "path": f"{key}/" if key else ""}


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
    if is_forked():
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


def is_forked() -> bool:
    """Whether this process was forked from one that has used the library, and cannot use it."""
    return _owner is not None and _owner != os.getpid()


def _store(root: Path) -> Any:
    _load()
    try:
        return _opened_store(json.dumps(_root_spec(root), sort_keys=True))
    except TimeoutError:
        raise SourceError(root, "has not answered in time", "check the network") from None
    except (ValueError, OSError) as error:
        raise SourceError(root, "can be no bucket or host", "check its name") from error


@lru_cache(64)
def _opened_store(spec: str) -> Any:
    import tensorstore as ts

    return ts.KvStore.open(json.loads(spec), context=_context()).result(PATIENCE)


def split(place: Path) -> tuple[Path, str]:
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


def listed(place: Path) -> list[str]:
    """The names of all objects below a place, from there on."""
    root, key = split(place)
    store = _store(root)
    lead = f"{key}/" if key else ""
    import tensorstore as ts

    within = ts.KvStore.KeyRange(lead, f"{key}0") if lead else ts.KvStore.KeyRange()  # 0 follows /
    found = answer(place, store.list(within, strip_prefix_length=len(lead.encode())))
    return [name.decode("utf-8", "surrogateescape") for name in found]


def answer(place: object, future: Any, size: int = 0) -> Any:
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
    if 'Error opening "' in text and 'attributes.json": ' in text:
        said = text.split('attributes.json": ')[-1].split(" [tensorstore_spec")[0]
        raise SourceError(
            place, f"its metadata cannot be used: {said[:300]}", "convert it, in smaller blocks"
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
    if re.search(r"HTTP code 30\d", text):
        raise SourceError(
            place,
            f"the server sends to another address ({text})",
            "give that one: curl -sIL shows where it leads",
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


def batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(items)
    while some := list(itertools.islice(rest, _AT_ONCE)):
        yield some
