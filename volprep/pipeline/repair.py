"""`volprep repair`: make exactly what is damaged again, and give back the set as it was written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from volprep.config import Config, load_config
from volprep.errors import SourceError, StoreError
from volprep.files import neighbour
from volprep.ledger import LEDGER, MANIFEST, left_over, load_manifest, remove_left_over
from volprep.pipeline.describe import CONFIG
from volprep.pipeline.export import is_export
from volprep.pipeline.identity import read_inputs
from volprep.pipeline.prepare import partial_of, prepare
from volprep.pipeline.told import Reporter, silent
from volprep.places import is_remote, path_of
from volprep.store import Fault, verify_set

__all__ = ["repair"]

log = logging.getLogger(__name__)


def repair(
    out: Path,
    config: Config | None = None,
    *,
    workers: int | None = None,
    reporter: Reporter = silent,
    tell: Callable[[str], object] = log.info,
) -> list[Fault]:
    """Make what is damaged of a patch set again, from the inputs that it was made from.

    Parameters
    ----------
    out : Path
        A finished set.
    config : Config or None
        What it was made by; None takes the set's own ``config.resolved.yaml``.
    workers : int or None
    reporter, tell : callable
        As for `prepare`.

    Returns
    -------
    list of Fault
        What was mended; nothing is written where there is nothing to mend.

    Raises
    ------
    StoreError
        If there is no set, the inputs are not what they were (it says what is lost), or what
        was made again is not what had been written.

    Notes
    -----
    Files that volprep did not write are moved beside the set, into ``OUT.strange``.
    """
    if is_remote(path_of(out)):
        raise StoreError(
            f"{path_of(out)}: lies behind a URL; mend it and its copy with: "
            "volprep prepare CONFIG --repair"
        )
    if is_export(out):
        raise StoreError(
            f"{out}: is an export, which is mended by the same volprep export again; "
            "what is repaired is the set that it was made from"
        )
    if not out.exists() and left_over(out) and (beside := partial_of(out)).is_dir():
        # A process was killed between the two moments in which a mended set takes its place.
        prepare(_at(out, load_config(beside / CONFIG), workers), reporter=reporter, tell=tell)
    faults = list(verify_set(out))
    if not faults:
        remove_left_over(out)  # a repair was killed when it had only that to do
        return []
    settings = _config_of(out, config, faults)
    before = _identity(out, faults)
    gone = _changed_inputs(out, faults, workers)
    if gone:
        raise StoreError(_lost(out, faults, gone))
    _move_strange(out, faults, tell)
    try:
        prepare(_at(out, settings, workers), repair=True, reporter=reporter, tell=tell)
    except SourceError as error:
        raise StoreError(_lost(out, faults, [str(error)])) from error
    left = list(verify_set(out))
    if left or not before <= _identity(out, left):
        raise StoreError(
            f"{out}: is whole, but not what had been written: the inputs, the config or volprep "
            "are not those of then"
        )
    return faults


def _at(out: Path, config: Config, workers: int | None) -> Config:
    """The config of a set, wherever the set lies by now."""
    compute = config.compute.model_copy(update={"workers": workers or config.compute.workers})
    output = config.output.model_copy(update={"dir": out.absolute()})
    return config.model_copy(update={"output": output, "compute": compute})


def _config_of(out: Path, config: Config | None, faults: Sequence[Fault]) -> Config:
    if config is not None:
        return config
    path = out / CONFIG
    if any(fault.path == path for fault in faults):
        raise StoreError(
            f"{path}: damaged, and needed to mend the set; give the config: "
            "volprep prepare CONFIG --repair"
        )
    return load_config(path)


def _identity(out: Path, faults: Sequence[Fault]) -> set[bytes]:
    """The manifest and the ledger, as far as they are whole; they tell of all other files."""
    damaged = {fault.path for fault in faults}
    paths = [path for path in (out / MANIFEST, out / LEDGER) if path not in damaged]
    return {path.read_bytes() for path in paths}


def _changed_inputs(out: Path, faults: Sequence[Fault], workers: int | None) -> list[str]:
    """What is not there any more of what the set was made from, as far as it is known."""
    if any(fault.path == out / MANIFEST for fault in faults):
        return []
    gone = []
    for entry in load_manifest(out)["inputs"]:
        try:
            path = path_of(entry["path"])
            known = {str(path): entry}.get
            inputs = read_inputs([path], known, trust="hash", workers=workers, reporter=silent)
            found = inputs.by_path[path]
        except SourceError as error:
            gone.append(str(error))
            continue
        if found.sha256 != entry["sha256"]:
            gone.append(f"{entry['path']}: has another content than when the set was made")
    return gone


def _lost(out: Path, faults: Sequence[Fault], gone: Sequence[str]) -> str:
    return "\n".join(
        [
            *gone,
            *(f"lost: {fault}" for fault in faults if fault.found != "not of the set"),
            f"{out}: cannot be mended without its inputs; bring them back, then run it again",
        ]
    )


def _move_strange(out: Path, faults: Sequence[Fault], tell: Callable[[str], object]) -> None:
    """Bring what volprep did not write out of the set."""
    beside = neighbour(out, ".strange")
    for fault in faults:
        if fault.found != "not of the set":
            continue
        if fault.path.is_dir() and not fault.path.is_symlink():  # which nothing is in
            tell(f"{fault.path}: an empty folder, not of the set; left out")
            continue
        target = beside / fault.path.relative_to(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        fault.path.replace(target)
        tell(f"{fault.path}: not of the set; moved to {target}")
