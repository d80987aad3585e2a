"""How kernels are compiled: for this machine, once for each user, and not without a word.

numba keeps what it compiles beside the source, so that every environment compiles again and an
installation that may not be written to compiles in every process. Here it is kept in one folder
of the user's, by the bytes of all kernels: a kernel is compiled into those that call it, and is
as stale as the oldest of them.

numba compiles one kernel at a time in a process. Where it is known which one is called next, a
second process compiles the one that is wanted now while this one compiles the next.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import multiprocessing
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config, event
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.misc.appdirs import AppDirs

__all__ = ["compiled_folder", "expect", "kernel", "part", "telling_of_compiling"]

log = logging.getLogger(__name__)

#: Days after which what nobody used is deleted, when another version compiles.
_UNUSED_DAYS = 60
#: Seconds that are waited for what another process compiles.
_LONGEST = 120


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function without the interpreter's lock, and keep what was compiled.

    Parameters
    ----------
    **options
        Of `numba.njit`.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(nogil=True, **options)(function)
        if not config.DISABLE_JIT and compiled_folder() is not None:
            dispatcher._cache = _Kept(function)  # what `cache=True` does, in a place of ours
        return dispatcher

    return compiled


def part(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function that kernels alone call; it is kept as a part of each of them.

    What lets Python call it takes a sixth of the time of compiling, so that is left out.
    """
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)  # type: ignore[no-any-return]


@cache
def compiled_folder() -> Path | None:
    """Where compiled kernels are kept; None where no folder can be written.

    The first that can be written: ``NUMBA_CACHE_DIR``, where that is set; the user's folder for
    caches; one for this user alone among the temporary files.
    """
    name = _fingerprint()
    if name is None:
        return None
    for home, named in _homes():
        folder = home / name
        try:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not named:
                _check_own(home)
            new = not folder.exists()
            folder.mkdir(exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            os.utime(folder)
        except OSError as error:
            log.debug("compiled kernels are not kept in %s: %s", folder, error)
            continue
        if new:
            _sweep(home)
        return folder
    return None


def _homes() -> Iterator[tuple[Path, bool]]:
    """Folders, and whether the user named them."""
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR) / "volprep", True
    yield Path(AppDirs(appname="volprep", appauthor=False).user_cache_dir) / "kernels", False
    user = os.getuid() if hasattr(os, "getuid") else "user"
    yield Path(tempfile.gettempdir()) / f"volprep-kernels-{user}", False


def _check_own(home: Path) -> None:
    """What lies in the folder is run, so one that others may write to is none of ours."""
    if hasattr(os, "getuid"):
        found = home.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(f"{home} is another user's")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{home} may be written by others")


def _sweep(home: Path) -> None:
    """Delete what other versions left and nobody used for long."""
    oldest = time.time() - _UNUSED_DAYS * 86400
    for other in home.iterdir():
        with contextlib.suppress(OSError):
            if other.stat().st_mtime < oldest:
                shutil.rmtree(other, ignore_errors=True)


def _fingerprint() -> str | None:
    """Of all kernels and what compiles them; None where the sources are no files."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    if not sources:
        return None
    digest = hashlib.sha256(f"{sys.version}|{numba.__version__}".encode())
    for source in sources:
        digest.update(source.name.encode() + hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()[:32]


class _Place:
    """What numba asks of a place for compiled functions."""

    def __init__(self, function: Callable[..., Any], source: str) -> None:
        self._py_file = source
        self._name = f"{Path(source).stem}-{function.__code__.co_firstlineno}"

    @classmethod
    def from_function(cls, function: Callable[..., Any], source: str) -> _Place:
        return cls(function, source)

    def ensure_cache_path(self) -> None:
        """Nothing: the folder is there."""

    def get_cache_path(self) -> str:
        return str(compiled_folder())

    def get_source_stamp(self) -> str:
        return str(compiled_folder())

    def get_disambiguator(self) -> str:
        return self._name


class _Form(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Place,)


#: Kernels that are called soon and were not yet, with the types of their arguments.
_EXPECTED: dict[Callable[..., Any], tuple[Any, tuple[Any, ...]]] = {}


def expect(kernel: Any, types: tuple[Any, ...]) -> None:
    """Say that a kernel is soon called, so that it may be compiled beside another.

    Parameters
    ----------
    kernel : of `kernel`
    types : tuple of numba types
        Of its arguments.
    """
    if not config.DISABLE_JIT and types not in kernel.overloads:
        _EXPECTED[kernel.py_func] = (kernel, types)


#: What the second process does. It is ours alone, so that nobody minds that it collects no
#: garbage, which is a tenth of the time of compiling.
_BESIDE = """
import gc, importlib, pickle, sys
gc.disable()
sys.path[:], module, name = pickle.load(sys.stdin.buffer)
kernel = getattr(importlib.import_module(module), name)
kernel.compile(pickle.load(sys.stdin.buffer))
"""


def _compile_beside(function: Callable[..., Any], types: tuple[Any, ...]) -> None:
    """Have a process compile a kernel, and compile here what is expected next.

    What goes wrong in the process costs time and nothing else: the kernel is compiled here.
    """
    what = pickle.dumps((sys.path, function.__module__, function.__name__)) + pickle.dumps(types)
    with contextlib.suppress(OSError):
        process = subprocess.Popen(
            [sys.executable, "-c", _BESIDE], start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError), process.stdin:
                    process.stdin.write(what)
            while _EXPECTED:
                _, (kernel, its) = _EXPECTED.popitem()
                kernel.compile(its)
            process.wait(_LONGEST)
        except subprocess.TimeoutExpired:
            log.debug("%s: another process did not compile it in time", function)
        finally:
            process.kill()
            process.wait()


def _has_second() -> bool:
    """Whether a second process may compile: for the first one of a program, on two processors."""
    # Where another program holds the interpreter, to start it anew is to start that program.
    python = Path(sys.executable or "").name.lower().startswith("python")
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return python and (free or 1) > 1 and not multiprocessing.parent_process()


class _Kept(FunctionCache):  # type: ignore[misc]
    """A full disk or a damaged file costs time and nothing else: the kernel is compiled again."""

    _impl_class = _Form

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = self._loaded(sig, target_context)
        _EXPECTED.pop(self._py_func, None)
        if found is None and self._are_missing(target_context) and _has_second():
            _compile_beside(self._py_func, sig)
            found = self._loaded(sig, target_context)
        return found

    @staticmethod
    def _are_missing(target_context: Any) -> bool:
        """Whether something is expected; what was compiled before is not any more."""
        for function, (kernel, types) in list(_EXPECTED.items()):
            key = kernel._cache._index_key(types, target_context.codegen())
            if kernel._cache._cache_file.load(key) is not None:
                del _EXPECTED[function]
        return bool(_EXPECTED)

    def _loaded(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:
            log.debug("%s: cannot be used, and is compiled again: %s", self, error)
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:
            log.debug("%s: cannot be kept: %s", self, error)


class _Teller(event.Listener):  # type: ignore[misc]
    """Hears of kernels that are compiled, and not of those that lie in the cache."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell, self.began = tell, 0.0

    def on_start(self, event: Any) -> None:
        if not self.began:
            self.began = time.perf_counter()
            folder = compiled_folder()
            self._tell(
                "compiling for this machine what samples are made with; it takes some seconds, and "
                + (
                    "again in every process: no folder can be written; set NUMBA_CACHE_DIR to one"
                    if folder is None
                    else f"is kept for the next time in {folder}"
                )
            )

    def on_end(self, event: Any) -> None:
        """Nothing: kernels are compiled one within the other."""


@contextlib.contextmanager
def telling_of_compiling(tell: Callable[[str], object]) -> Iterator[None]:
    """While it lasts, say when a kernel is compiled, and at the end how long all of it took.

    Parameters
    ----------
    tell : callable
        Given a sentence; nothing is told where every kernel was compiled before.
    """
    teller = _Teller(tell)
    with event.install_listener("numba:compile", teller):
        yield
    if teller.began:
        tell(f"compiled, in {time.perf_counter() - teller.began:.1f} s")
