"""The Typer app: options of every command, and the one place where errors are caught."""

from __future__ import annotations

import codecs
import contextlib
import errno
import faulthandler
import io
import logging
import os
import platform
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from volprep.cli.completion import answer_shell, one_of, settings
from volprep.cli.console import Talk, be_quiet, complain
from volprep.errors import OutOfMemoryError, SourceError, StoreError, VolprepError
from volprep.version import __version__

__all__ = ["Executor", "Scheduler", "Set", "Threads", "app", "main"]

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        autocompletion=settings,
        help="A key over the YAML's, such as plan.memory=4GiB; may be repeated. All keys: "
        "volprep explain.",
    ),
]

Executor = Annotated[
    str | None,
    typer.Option(
        help="Where units run: serial, threads, processes or dask, over the YAML's.",
        autocompletion=one_of("serial", "threads", "processes", "dask"),
    ),
]
Threads = Annotated[int | None, typer.Option("--workers", "-j", min=1, max=1024, help="Threads.")]
Scheduler = Annotated[
    str | None, typer.Option(help="A Dask scheduler that runs, such as tcp://10.0.0.7:8786.")
]


_INTERRUPTED, _TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
#: Seconds that an interrupted command has to end by itself.
_PATIENCE = 1.5
_KEPT = "interrupted; what is done is kept, the same command goes on"


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as a batch system sends it."""

    came = False


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Let the command put away what it has begun, where an exception can be trusted to get there.

    Inside of an import it may be passed over, or end the process by itself.
    """
    _Terminated.came = number == signal.SIGTERM
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            with contextlib.suppress(OSError):
                os.write(2, f"{_KEPT}\n".encode())
            os._exit(128 + number)
        frame = frame.f_back
    raise _Terminated if _Terminated.came else KeyboardInterrupt


def _watch_signals() -> None:
    """End soon after Ctrl-C and SIGTERM, whatever the main thread and the others are at.

    Units under way are not waited for: a killed process loses nothing that is done. The
    system tells of a signal through a pipe at once, even while a kernel runs that will
    not look at it for a long time.
    """
    # A file that becomes shorter while it is mapped ends the process: not without a word.
    with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):  # no stderr
        faulthandler.enable(all_threads=False)
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)

    def watch() -> None:
        while (number := os.read(told, 1)[0]) not in (signal.SIGINT, signal.SIGTERM):
            pass
        time.sleep(_PATIENCE)
        os._exit(128 + number)

    threading.Thread(target=watch, daemon=True).start()


#: What Typer tells by itself: wrong options. Newer versions bring Click along under another name.
_UsageError: type[BaseException] = typer.BadParameter.__mro__[2]  # ClickException


#: Options of all commands, which may stand before or behind the command's name.
_ANYWHERE = {"--debug", "--quiet", "-q", "--verbose", "-v", "-vv"}


class _Commands(TyperGroup):
    """Runs a command and turns what goes wrong into a message and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        ours = [arg for arg in args[:end] if arg in _ANYWHERE]
        rest = [arg for arg in args[:end] if arg not in _ANYWHERE]
        return list(super().parse_args(ctx, [*ours, *rest, *args[end:]]))

    def invoke(self, ctx: Any) -> Any:
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()  # here, where a reader that has gone is no fault
            return done
        except VolprepError as error:
            if ctx.params.get("debug"):
                raise
            for line in str(error).splitlines() or [type(error).__name__]:
                complain(f"error: {line}")
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:  # the reader of our output has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except OSError as error:
            if ctx.params.get("debug"):
                raise
            # What is read is wrapped where it is read, so that this is about what is written.
            where = f"{error.filename}: " if error.filename else ""
            complain(f"error: {where}{error.strerror or error}; {_remedy(error)}")
            raise typer.Exit(StoreError.exit_code) from None
        except KeyboardInterrupt as error:
            complain(_KEPT)
            raise typer.Exit(
                _TERMINATED if isinstance(error, _Terminated) else _INTERRUPTED
            ) from None
        except MemoryError as error:
            if ctx.params.get("debug"):
                raise
            asked = f" ({error})" if str(error) else ""
            complain(
                f"error: {ctx.invoked_subcommand}: memory ran out{asked}; use fewer --workers, or "
                "leave this machine more memory"
            )
            raise typer.Exit(OutOfMemoryError.exit_code) from None
        except (typer.Exit, typer.Abort):
            raise
        except _UsageError as error:
            if isinstance(said := getattr(error, "message", None), str):
                error.message = _plainly(said)  # type: ignore[attr-defined]
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            if isinstance(error, RuntimeError) and "Symlink loop" in str(error):
                complain(f"error: {error}; remove the link that leads to itself")
                raise typer.Exit(SourceError.exit_code) from None
            complain(f"error: internal: {type(error).__name__}: {error}")
            complain(f"a report to send was written to {_write_report(error)}")
            raise typer.Exit(1) from None


#: What newer versions of Typer say of a value, and what is meant.
_PLAINLY = (
    (r"Input should be a valid integer\b.*", "it must be a whole number"),
    (r"Input should be a valid number\b.*", "it must be a number"),
    (r"Input should be greater than or equal to (\S+)", r"it must be \1 or more"),
    (r"Input should be less than or equal to (\S+)", r"it must be \1 or less"),
    (r"Input should be ", "it must be "),
    (r"Value error, ", ""),
)


def _plainly(text: str) -> str:
    """A message about a wrong option in the words of the other ones."""
    for theirs, ours in _PLAINLY:
        text = re.sub(theirs, ours, text, flags=re.DOTALL)
    return text


def _remedy(error: OSError) -> str:
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return "check its permissions, or choose another place"
    if error.errno == errno.ENAMETOOLONG:
        return "give a shorter name"
    if error.errno == errno.ENOSPC:
        return "free some space, then run it again"
    return "choose another place, or mend this one"


def _write_report(error: Exception) -> str:
    """The place of a text with everything that is needed to find a fault of volprep."""
    lines = [
        f"volprep {__version__}, Python {sys.version}, {platform.platform()}",
        f"command: {' '.join(sys.argv)}",
        "",
        *traceback.format_exception(error),
    ]
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="volprep-report-", suffix=".txt", delete=False, encoding="utf-8",
            errors="backslashreplace",
        ) as file:  # fmt: skip
            file.write("\n".join(lines))
            return file.name
    except OSError:
        print("\n".join(lines), file=sys.stderr)
        return "standard error, above"


app = typer.Typer(
    cls=_Commands,
    name="volprep",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From raw 3D microscopy volumes to a training-ready patch set.\n\n"
    "Start with:  volprep init DATA -o volprep.yaml  and  volprep prepare volprep.yaml",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"volprep {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Tell errors alone; results stay on stdout.")
    ] = False,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Log more; twice for details.")
    ] = 0,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    be_quiet(quiet)
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    level = logging.ERROR if quiet else level
    logging.addLevelName(logging.WARNING, "warning")
    form = "%(levelname)s: %(message)s" if verbose == 0 else "%(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=level, format=form, handlers=[Talk()], force=True)
    logging.getLogger("tifffile").setLevel(logging.ERROR if verbose < 2 else level)
    # What becomes of a lost worker or scheduler is said in our own words.
    logging.getLogger("distributed").setLevel(logging.CRITICAL if verbose < 2 else level)


def main() -> None:
    """Run the command line."""
    # Else numba, where colorama is installed, lets it write escapes to any terminal at the end.
    os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")
    _mend_streams()
    try:
        _watch_signals()
        try:
            answer_shell(app)
        except SystemExit as end:
            if end.code in (_INTERRUPTED, _TERMINATED):
                _end(int(end.code))
            # Done is done: on its way out the interpreter would take up the system's own way of
            # dealing with signals, which is to end at once with another status.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            raise
    except KeyboardInterrupt:  # before there was a command to tell of it
        _end(_INTERRUPTED)


def _mend_streams() -> None:
    """Print nowhere where there is no stream, and in its letters where it has few."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: or the next file would take its place
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    codecs.register_error("volprep", _in_few_letters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="volprep")


def _in_few_letters(error: UnicodeError) -> tuple[str, int]:
    """What a terminal of ASCII alone can show of a text."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    plain = {"µ": "u", "×": "x", "…": "...", "–": "-", "±": "+-"}
    letters = error.object[error.start : error.end]
    return "".join(plain.get(letter, "?") for letter in letters), error.end


def _end(code: int) -> NoReturn:
    """End now: the interpreter would wait for all threads.

    Typer takes SIGTERM for Ctrl-C where it comes before the command is called.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_TERMINATED if _Terminated.came else code)
