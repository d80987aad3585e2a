"""What the commands print: tables and progress for people, JSON for programs.

Results go to stdout, all else to stderr. Where a stream is no terminal it gets plain lines.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volprep.errors import ConfigError, within_memory
from volprep.places import is_remote, path_of

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = [
    "Talk",
    "amount",
    "be_quiet",
    "complain",
    "local",
    "print_json",
    "print_table",
    "print_text",
    "say",
    "shape_text",
    "spacing_text",
    "stage",
    "told",
]

#: Rows of a table that are shown on a terminal; a pipe and --json get all of them.
_MOST_ROWS = 40
#: Seconds after which a stage shows a bar.
_SOON = 1.0
_quiet = False
_live: Progress | None = None


def be_quiet(wanted: bool) -> None:
    """Whether nothing but results and errors is told."""
    global _quiet
    _quiet = wanted


def local(path: Path, option: str) -> Path:
    """What a command writes to; ConfigError where that is a URL."""
    if is_remote(path_of(path)):
        raise ConfigError(
            f"{option}: {path_of(path)} is a URL, and this is written to a disk of this "
            "machine; give a folder, and copy it to the store when it is done"
        )
    return path


def print_json(content: object) -> None:
    """One JSON document on stdout, and nothing else."""
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    json.dump(content, sys.stdout, indent=2, ensure_ascii=ascii_only, allow_nan=False)
    print(flush=True)


def print_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    most: int | None = _MOST_ROWS,
) -> None:
    """A table on a terminal, as wide as that is; tab-separated lines elsewhere.

    `most` rows are shown on a terminal.
    """
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not _is_terminal(sys.stdout):
        for row in [list(header), *texts]:
            print("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    shown = texts if most is None or len(texts) <= most else texts[: most - 1]
    columns = list(zip(header, *shown, strict=True))
    widths = [max(map(len, column)) for column in columns]
    words = [max(len(word) for cell in each for word in cell.split() or [""]) for each in columns]
    room = console.width - 2 * len(columns)
    console.print(Text(title, style="bold"))
    if len(columns) > 2 and sum(words) > room:
        _print_records(console, header, shown)
    else:
        least = _shared(widths, words, room)
        table = Table(box=None, header_style="underline", padding=(0, 2, 0, 0))
        for number, name in enumerate(header):
            figures = all(_is_figure(row[number]) for row in shown) and bool(shown)
            table.add_column(
                name,
                overflow="fold",
                justify="right" if figures else "left",
                width=least[number],
            )
        for row in shown:
            table.add_row(*map(Text, row))
        console.print(table)
    if len(shown) < len(texts):
        console.print(f"... and {len(texts) - len(shown):,} more: --json lists all of them")
    console.print()


def print_text(text: str) -> None:
    """Lines as wide as a terminal is, or as 100 letters; what is indented stays so."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
    for line in text.splitlines():
        print(_wrapped(line, max(width, 40)))


def _wrapped(line: str, width: int) -> str:
    """A line of two columns, its second one kept together."""
    bare = line.lstrip(" ")
    column = len(line) - len(bare)
    if column and "  " in bare:  # a name, then words
        head = bare.split("  ", 1)[0]
        rest = bare[len(head) :].lstrip(" ")
        column = min(len(line) - len(rest), width // 2)
    lines = textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * column,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )
    return line if len(line) <= width else "\n".join(part.rstrip() for part in lines)


def _shared(widths: Sequence[int], words: Sequence[int], room: int) -> list[int]:
    """Widths of columns that fit: no word is broken where all have room, short ones stay whole.

    They are set here, since rich loses letters where columns only have a least width.
    """
    least = list(words) if sum(words) <= room else [min(word, room // len(words)) for word in words]
    left = room - sum(least)
    order = sorted(range(len(widths)), key=widths.__getitem__)
    for place, number in enumerate(order):
        share = left if widths[number] <= 24 else left // (len(order) - place)
        more = max(min(widths[number] - least[number], share), 0)
        least[number] += more
        left -= more
    return least


def _print_records(console: Any, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Each row as a paragraph, for narrow terminals."""
    from rich.text import Text

    room = min(max(map(len, header[1:])), 16)
    for first, *rest in rows:
        console.print(Text(first, style="bold"), soft_wrap=True)
        for name, cell in zip(header[1:], rest, strict=True):
            if cell:
                line = _wrapped(f"  {name:{room}}  {cell}", max(console.width, 40))
                console.print(Text(line), soft_wrap=True)


def _is_figure(cell: str) -> bool:
    try:
        float(cell.replace(",", "").rstrip("%"))
    except ValueError:
        return cell in ("-", "")
    return True


def _is_terminal(stream: Any) -> bool:
    """Whether a person looks at it, through something that can do more than print."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def say(message: str) -> None:
    """A line for the person who waits; on stderr, so that stdout stays results."""
    if not _quiet:
        complain(message)


def complain(message: str) -> None:
    """What is told to somebody who wants quiet, too: on stderr, above a bar that it would tear."""
    if _live is not None:
        from rich.text import Text

        _live.console.print(Text(message), soft_wrap=True)
        return
    if _is_terminal(sys.stderr):  # or it would break words, and names of files at that
        width = max(shutil.get_terminal_size().columns, 40)
        message = "\n".join(_wrapped(line, width) for line in message.splitlines())
    try:
        print(message, file=sys.stderr)
    except BrokenPipeError:  # nobody listens any more, which is no reason to stop working
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


class Talk(logging.Handler):
    """Log lines on stderr, without tearing a bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a library's traceback only where details are wanted."""
        if record.exc_info and logging.getLogger().level > logging.DEBUG:
            error = record.exc_info[1]
            said = record.getMessage() or f"{type(error).__name__}: {error}"
            plain = {"msg": said, "args": None, "exc_info": None, "exc_text": None}
            record = logging.makeLogRecord({**record.__dict__, **plain})
        try:
            complain(self.format(record))
        except Exception:
            self.handleError(record)


def told(level: str, count: int) -> str:
    """``2 warnings``."""
    return f"{count} {level}{'' if count == 1 else 's'}"


def amount(count: float, unit: str = "") -> str:
    """``6.6 M voxels``, ``1.3 GiB``, ``1 case``."""
    if unit == "bytes":
        from volprep.files import format_bytes

        return format_bytes(count)
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if count >= size:
            return f"{count / size:.3g} {name} {unit}".rstrip()
    if count == 1:
        unit = {"patches": "patch"}.get(unit, unit.removesuffix("s"))
    figure = f"{count:,.0f}" if count >= 10 or count == int(count) else f"{count:.2g}"
    return f"{figure} {unit}".rstrip()


@contextmanager
def stage(title: str, total: int, unit: str = "") -> Iterator[Callable[[int], None]]:
    """A long stage: a bar with rate, time left and memory on a terminal, then one line.

    Stages of less than a second leave nothing on a terminal, and no time on a line.

    Yields
    ------
    callable
        ``advance(n)``, from any thread.
    """
    begin = time.monotonic()
    bar = _Bar(title, total, unit) if _is_terminal(sys.stderr) and not _quiet else None
    try:
        with within_memory(title):
            yield (lambda _: None) if bar is None else bar.advance
    finally:
        if bar is not None:
            bar.close()
    took = time.monotonic() - begin
    if bar is None or took >= _SOON:
        pace = f", {amount(total / took, unit)}/s" if total > 1 else ""  # of one it says nothing
        rate = f", {took:.1f} s{pace}" if took >= _SOON else ""
        say(f"{title}: {amount(total, unit)}{rate}")


class _Bar:
    """A bar that appears when its stage turns out to be long."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        self.begin = time.monotonic()
        self.lock = threading.Lock()
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.over = False
        self.timer = threading.Timer(_SOON, self.open)
        self.timer.daemon = True
        self.timer.start()

    def open(self) -> None:
        """Show it, unless another one is shown or the stage is over."""
        global _live
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        wide = shutil.get_terminal_size().columns >= 72
        columns: list[Any] = [TextColumn("{task.description}"), BarColumn(None if wide else 10)]
        columns += [TextColumn("{task.percentage:>3.0f}%")]
        columns += [TextColumn("{task.fields[facts]}")] if wide else []
        columns += [TimeRemainingColumn(compact=True)]
        with self.lock:
            if _live is not None or self.over:
                return
            progress = Progress(*columns, console=Console(stderr=True), transient=True, expand=wide)
            self.task = progress.add_task(
                self.title, total=self.total, completed=self.done, facts=self.facts()
            )
            progress.start()
            self.progress = _live = progress

    def facts(self) -> str:
        rate = self.done / max(time.monotonic() - self.begin, 1e-3)
        memory = _resident()
        text = f"{amount(self.done, self.unit)}  {amount(rate)}/s"
        if self.unit == "bytes":
            text = f"{amount(self.done, 'bytes')}  {amount(rate, 'bytes')}/s"
        return text + ("" if memory is None else f"  {amount(memory, 'bytes')} memory")

    def advance(self, count: int) -> None:
        with self.lock:
            self.done += count
            if self.progress is not None and self.task is not None:
                self.progress.update(self.task, completed=self.done, facts=self.facts())

    def close(self) -> None:
        global _live
        self.timer.cancel()
        with self.lock:
            progress, self.progress = self.progress, None
            self.over = True
            if progress is not None:
                progress.stop()
                _live = None


def _resident() -> int | None:
    """Bytes of memory that this process holds, mapped files included."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def shape_text(shape: Sequence[int] | None) -> str:
    """``96 x 512 x 512``."""
    return "-" if shape is None else " x ".join(str(n) for n in shape)


def spacing_text(spacing: Sequence[float] | None, *, micrometres: bool = False) -> str:
    """``0.3 x 0.1 x 0.1 µm``, ``50 x 4 x 4 nm``, or that it is not known.

    With `micrometres` in them and without a unit, for a column of them.
    """
    if spacing is None:
        return "unknown"
    unit, times = (" nm", 1e3) if max(spacing) < 0.1 else (" µm", 1.0)
    unit, times = (" mm", 1e-3) if max(spacing) >= 1e3 else (unit, times)
    if micrometres:
        unit, times = "", 1.0
    return " x ".join(f"{s * times:.4g}" for s in spacing) + unit
