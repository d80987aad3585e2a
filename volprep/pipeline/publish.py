"""A finished set copied to where its config wants it, too: a bucket."""

from __future__ import annotations

from collections.abc import Callable

from volprep.config import Config
from volprep.pipeline.run import COSTLY
from volprep.pipeline.told import Reporter
from volprep.store import PatchStore, bytes_of, check_url, publish

__all__ = ["look_at_url", "publish_set"]


def look_at_url(config: Config) -> None:
    """Refuse a URL that cannot be written to, before anything is made for it.

    Raises
    ------
    StoreError
        If it is none of a store, or the store cannot be reached.
    """
    if config.output.url is not None:
        check_url(config.output.url)


def publish_set(
    config: Config,
    store: PatchStore,
    *,
    overwrite: bool,
    repair: bool,
    reporter: Reporter,
    tell: Callable[[str], object],
) -> None:
    """Copy a set to ``output.url``, if there is one; what is there already is not copied.

    Raises
    ------
    StoreError
        If the store fails, or holds a set whose work would be lost.
    """
    url = config.output.url
    if url is None:
        return
    with reporter("copy", bytes_of(store.path), "bytes") as advance:
        done = publish(
            store.path,
            url,
            overwrite=overwrite or repair,
            again=repair or overwrite,
            costly=COSTLY,
            progress=advance,
        )
    if done is None:
        tell(f"{url} is complete already")
    else:
        tell(f"{url}: {done.copied} files copied, {done.kept} were there, {done.removed} removed")
