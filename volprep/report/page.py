"""One page maker for the report and the previews: sections of pictures, charts, tables and words.

A page is HTML that needs nothing else (no network, no script from elsewhere, light and dark,
narrow and wide, on paper, by keyboard and by ear), and its pictures are one contact sheet.
"""

from __future__ import annotations

import base64
import functools
import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Literal, Protocol

from PIL import Image, ImageDraw, ImageFont

from volprep.report.charts import Chart
from volprep.report.pictures import Picture

__all__ = [
    "Beside",
    "Block",
    "Cell",
    "Charts",
    "Column",
    "Commands",
    "Fold",
    "Gallery",
    "Html",
    "Notice",
    "Notices",
    "Page",
    "Row",
    "Section",
    "Table",
    "Value",
    "Words",
    "with_names",
]

Tone = Literal["good", "warn", "bad", "info"]


class Block(Protocol):
    """A part of a section."""

    def html(self) -> str:
        """As HTML."""
        ...


@dataclass(frozen=True)
class Cell:
    """One picture or chart (or a picture before and after), its heading and what stands below."""

    picture: Picture | Chart
    heading: str
    lines: Sequence[str] = ()
    before: Picture | None = None

    @property
    def pictures(self) -> list[Picture]:
        """Those that it has, from left to right."""
        return [p for p in (self.before, self.picture) if isinstance(p, Picture)]

    @property
    def width(self) -> int:
        """Pixels that it takes."""
        widths = [p.size[0] for p in self.pictures] or [320]
        return max(150, sum(widths) + 6 * (len(widths) - 1))

    def html(self) -> str:
        """As a figure."""
        lines = "".join(f"<li>{escape(line)}</li>" for line in self.lines)
        said = f"<ul>{lines}</ul>" if lines else ""
        if isinstance(self.picture, Chart):
            shown = self.picture.svg
        else:
            alt = ", ".join([self.heading, *self.lines])
            shown = "".join(picture_html(p, alt) for p in self.pictures)
        if self.before is not None:
            shown = f'<div class="pair">{shown}</div>'
        return (
            f'<figure style="width:{self.width}px">{shown}'
            f"<figcaption><strong>{escape(self.heading)}</strong>{said}</figcaption></figure>"
        )


@dataclass(frozen=True)
class Gallery:
    """Pictures beside each other; `tight` ones are small, with a name alone."""

    cells: Sequence[Cell]
    tight: bool = False

    def html(self) -> str:
        """As HTML."""
        kind = "cells tight" if self.tight else "cells"
        return f'<div class="{kind}">\n' + "\n".join(c.html() for c in self.cells) + "\n</div>"


@dataclass(frozen=True)
class Charts:
    """Charts beside each other, as wide as there is room."""

    charts: Sequence[Chart]

    def html(self) -> str:
        """As HTML."""
        drawn = "".join(f'<figure class="chart">{chart.html()}</figure>' for chart in self.charts)
        return f'<div class="charts">{drawn}</div>'


@dataclass(frozen=True)
class Beside:
    """Blocks beside each other where there is room, else below."""

    blocks: Sequence[Block]

    def html(self) -> str:
        """As HTML."""
        each = "".join(f"<div>{block.html()}</div>" for block in self.blocks)
        return f'<div class="beside">{each}</div>'


@dataclass(frozen=True)
class Html:
    """What is HTML already."""

    text: str

    def html(self) -> str:
        """As it is."""
        return self.text


@dataclass(frozen=True)
class Words:
    """A paragraph, or with `heading` the head of what follows."""

    text: str
    heading: bool = False

    def html(self) -> str:
        """As HTML."""
        return f"<h3>{escape(self.text)}</h3>" if self.heading else (
            f'<p class="note">{escape(self.text)}</p>'
        )  # fmt: skip


@dataclass(frozen=True)
class Fold:
    """What is shown when it is asked for, or with `opened` until it is folded."""

    title: str
    blocks: Sequence[Block]
    opened: bool = False

    def html(self) -> str:
        """As HTML."""
        inside = "\n".join(block.html() for block in self.blocks)
        way = " open" if self.opened else ""
        return f"<details{way}><summary>{escape(self.title)}</summary>\n{inside}\n</details>"


@dataclass(frozen=True)
class Commands:
    """What can be typed next, and why one would."""

    commands: Sequence[tuple[str, str]]

    def html(self) -> str:
        """As HTML."""
        each = (
            f"<li><p>{escape(why)}</p><pre><code>{_fillable(command)}</code></pre></li>"
            for command, why in self.commands
        )
        used = [w for w in STANDS_FOR if any(w in command for command, _ in self.commands)]
        notes = "".join(f'<p class="note stands">{_stands(word)}</p>' for word in used)
        return f'{notes}<ul class="steps">{"".join(each)}</ul>'


def _fillable(command: str) -> str:
    """A command in HTML, with what `with_names` fills in: in Python's quotes as it is."""
    kind = ' class="raw"' if "import " in command else ""
    return re.sub(rf"({'|'.join(STANDS_FOR)})", rf"<var{kind}>\1</var>", escape(command))


#: What stands for a path in commands, and what it is.
STANDS_FOR = {"PATCHES": "the folder in which this page lies", "CONFIG": "your YAML"}


def with_names(html: str, **names: Path) -> str:
    """A page with the true paths in its commands.

    Parameters
    ----------
    html : str
        A page with `Commands`.
    **names
        Of `STANDS_FOR`.
    """
    for word, path in names.items():
        html = html.replace(f"<var>{word}</var>", escape(shlex.quote(str(path))))
        html = html.replace(f'<var class="raw">{word}</var>', escape(str(path)))
        html = html.replace(f'<p class="note stands">{_stands(word)}</p>', "")
    return html


def _stands(word: str) -> str:
    return f"{word} is {STANDS_FOR[word]}."


@dataclass(frozen=True)
class Notice:
    """A finding: what it is called, what was found, where, and what to do."""

    tone: Tone
    level: str
    name: str
    found: str
    todo: str
    where: str = ""


@dataclass(frozen=True)
class Notices:
    """Findings, the worst first."""

    notices: Sequence[Notice]

    def html(self) -> str:
        """As HTML."""
        each = (
            f'<li class="{n.tone}"><b>{escape(n.level)}: <code>{escape(n.name)}</code>'
            f"{f' <span>in {escape(n.where)}</span>' if n.where else ''}</b>"
            f'<p>{_marked(n.found)}</p><p class="todo">To do: {_marked(n.todo)}</p></li>'
            for n in self.notices
        )
        return f'<ul class="findings">{"".join(each)}</ul>'


@dataclass(frozen=True)
class Column:
    """A column of a table: its name, and whether it holds numbers and can be sorted by."""

    name: str
    number: bool = False
    sort: bool = True


@dataclass(frozen=True)
class Value:
    """What stands in a table: text, what it is sorted by where that is another, or HTML."""

    text: str
    sort: float | None = None
    html: str | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table, and by which word of a choice it can be found."""

    values: Sequence[Value | str]
    side: str = ""


@dataclass(frozen=True)
class Table:
    """Rows with a name in the first column of text; with `tools` to be sorted and filtered.

    Parameters
    ----------
    columns : sequence of Column
    rows : sequence of Row
    caption : str
        For those who hear the page.
    tools : str or None
        The name of the table among those of its page; None is a plain table.
    sides : sequence of str
        What rows can be chosen by.
    """

    columns: Sequence[Column]
    rows: Sequence[Row]
    caption: str
    tools: str | None = None
    sides: Sequence[str] = ()

    def html(self) -> str:
        """As HTML."""
        marked = "" if self.tools is None else f' data-sort data-tools="{self.tools}-tools"'
        head = "".join(self._head(column) for column in self.columns)
        body = "\n".join(self._row(row) for row in self.rows)
        return (
            f'{self._tools()}<div class="tablewrap"><table class="stack"{marked}>'
            f'<caption class="hide">{escape(self.caption)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
        )

    def _tools(self) -> str:
        if self.tools is None:
            return ""
        orders = "".join(
            f'<option value="{n} {way}">{escape(column.name)}, {word}</option>'
            for n, column in enumerate(self.columns)
            if column.sort
            for way, word in (("up", "ascending"), ("down", "descending"))
        )
        sides = ""
        if len(self.sides) > 1:
            options = "".join(f"<option>{escape(side)}</option>" for side in self.sides)
            sides = (
                '<label>Show <select class="sides"><option value="">all</option>'
                f"{options}</select></label>"
            )
        return (
            f'<div class="tools" id="{self.tools}-tools" hidden><label>Filter '
            '<input type="search" placeholder="name, dtype, finding ..."></label>'
            f'{sides}<label>Sort by <select class="order"><option value="">as listed</option>'
            f"{orders}</select></label>"
            '<output aria-live="polite"></output></div>'
        )

    def _head(self, column: Column) -> str:
        kind = ' class="n"' if column.number else ""
        name = escape(column.name)
        if not name:
            return '<th scope="col"><span class="hide">Picture</span></th>'
        if self.tools is None or not column.sort:
            return f'<th scope="col"{kind}>{name}</th>'
        button = f'<button type="button">{name}</button>'
        return f'<th scope="col"{kind} aria-sort="none">{button}</th>'

    def _row(self, row: Row) -> str:
        side = f' data-side="{escape(row.side, quote=True)}"' if row.side else ""
        first = next((n for n, c in enumerate(self.columns) if not c.number and c.sort), 0)
        cells = "".join(
            self._cell(column, value, key=n == first)
            for n, (column, value) in enumerate(zip(self.columns, row.values, strict=True))
        )
        return f"<tr{side}>{cells}</tr>"

    def _cell(self, column: Column, value: Value | str, *, key: bool) -> str:
        value = Value(value) if isinstance(value, str) else value
        kind = "k" if key else "n" if column.number else ""
        marks = f' class="{kind}"' if kind else ""
        marks += "" if value.sort is None else f' data-v="{value.sort:.10g}"'
        marks += f' data-name="{escape(column.name, quote=True)}"' if column.name else ""
        return f"<td{marks}>{escape(value.text) if value.html is None else value.html}</td>"


@dataclass(frozen=True)
class Section:
    """A part of a page with a title of its own."""

    title: str
    note: str
    blocks: Sequence[Block]

    @property
    def name(self) -> str:
        """By what it is linked to."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def cells(self) -> list[Cell]:
        """Its pictures."""
        found = (block.cells for block in self.blocks if isinstance(block, Gallery))
        return [cell for cells in found for cell in cells]

    def html(self) -> str:
        """As HTML."""
        note = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        inside = "\n".join(block.html() for block in self.blocks)
        return (
            f'<section id="{self.name}" aria-labelledby="{self.name}-title">\n'
            f'<h2 id="{self.name}-title">{escape(self.title)}</h2>\n{note}\n{inside}\n</section>'
        )


@dataclass(frozen=True)
class Page:
    """A page of sections.

    Parameters
    ----------
    title : str
    lines : sequence of str
        What is to be known before all else; the first one is the lead.
    sections : sequence of Section
    verdict : (tone, str) or None
        In one word, whether all is well.
    facts : sequence of (name, value, unit)
        Shown large.
    top : Block or None
        Pictures above all sections.
    """

    title: str
    lines: Sequence[str]
    sections: Sequence[Section]
    verdict: tuple[Tone, str] | None = None
    facts: Sequence[tuple[str, str, str]] = ()
    top: Block | None = field(default=None)

    def html(self) -> str:
        """The page with its pictures inside."""
        policy = (
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
            "script-src 'unsafe-inline'"
        )
        links = "".join(
            f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in self.sections
        )
        body = "\n".join(section.html() for section in self.sections)
        toggle = (
            '<li><label><input type="checkbox" id="outlines" checked> outlines</label></li>'
            if 'class="over"' in body or (self.top and 'class="over"' in self.top.html())
            else ""
        )
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>\n{_asset('page.css')}</style>\n"
            '</head>\n<body>\n<a class="skip" href="#content">To the content</a>\n'
            f"{self._header()}\n"
            f'<nav aria-label="Sections"><ul>{links}{toggle}</ul></nav>\n'
            f'<main id="content">\n{body}\n</main>\n'
            '<dialog aria-label="Enlarged picture"></dialog>\n'
            f"<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n"
        )

    def _header(self) -> str:
        verdict = ""
        if self.verdict is not None:
            tone, words = self.verdict
            verdict = f'<p class="verdict {tone}">{escape(words)}</p>'
        lines = "".join(
            f"<p{' class=lead' * (n == 0)}>{escape(line)}</p>" for n, line in enumerate(self.lines)
        )
        tiles = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(unit)}</small></dd></div>"
            for name, value, unit in self.facts
        )
        tiles = f'<dl class="tiles">{tiles}</dl>' if tiles else ""
        top = "" if self.top is None else self.top.html()
        return f"<header><h1>{escape(self.title)}</h1>{verdict}{lines}{tiles}{top}</header>"

    def sheet(self) -> Image.Image:
        """Its pictures as one RGB picture."""
        return _draw_sheet(self)

    def write(self, html: str | Path | None = None, sheet: str | Path | None = None) -> None:
        """Write the HTML page, the PNG contact sheet, or both."""
        if html is not None:
            Path(html).write_text(self.html(), encoding="utf-8")
        if sheet is not None:
            self.sheet().save(sheet, format="PNG")


def _marked(text: str) -> str:
    """Escaped, with `keys` in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def picture_html(picture: Picture, alt: str) -> str:
    """A picture with what is drawn over it, which can be enlarged."""
    width, height = picture.size
    said = escape(alt, quote=True)
    over = ""
    if picture.over is not None:
        over = f'<img class="over" src="{_data(picture.over)}" alt="">'
    alpha = picture.base.getextrema()[-1] if picture.base.mode in ("LA", "RGBA") else (255, 255)
    whole = " whole" if alpha == (255, 255) else ""  # no corner is empty: it has an edge
    return (
        f'<button type="button" class="pic{whole}"><img src="{_data(picture.base)}" '
        f'width="{width}" height="{height}" alt="{said}">{over}</button>'
    )


def _data(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


@functools.cache
def _asset(name: str) -> str:
    return files("volprep.report").joinpath(name).read_text(encoding="utf-8")


_MARGIN, _GAP, _LINE, _SMALL = 28, 16, 15, 12
_INK, _GREY = (29, 34, 40), (102, 112, 123)


def _draw_sheet(page: Page) -> Image.Image:
    """Sections below each other, cells beside each other."""
    rows = [(section, [c for c in section.cells if c.pictures]) for section in page.sections]
    rows = [(section, cells) for section, cells in rows if cells]
    width = 2 * _MARGIN + max([600, *(sum(c.width + _GAP for c in cells) for _, cells in rows)])
    head = 46 + 20 * len(page.lines) + 14
    heights = [58 + max(map(_cell_height, cells)) + 18 for _, cells in rows]
    sheet = Image.new("RGB", (width, _MARGIN + head + sum(heights)), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    _write(pen, (_MARGIN, _MARGIN), page.title, 24, _INK)
    for n, line in enumerate(page.lines):
        _write(pen, (_MARGIN, _MARGIN + 38 + 20 * n), line, 14, _GREY)
    top = _MARGIN + head
    for (section, cells), height in zip(rows, heights, strict=True):
        pen.line((_MARGIN, top - 8, width - _MARGIN, top - 8), fill=(225, 228, 232))
        _write(pen, (_MARGIN, top), section.title, 17, _INK)
        _write(pen, (_MARGIN, top + 24), section.note, _SMALL, _GREY)
        left = _MARGIN
        for cell in cells:
            across = left
            for picture in cell.pictures:
                sheet.paste(picture.flat(), (across, top + 48))
                across += picture.size[0] + 6
            _draw_caption(pen, cell, left, top + 48 + _picture_height(cell) + 5)
            left += cell.width + _GAP
        top += height
    return sheet


def _picture_height(cell: Cell) -> int:
    return max(picture.size[1] for picture in cell.pictures)


def _cell_height(cell: Cell) -> int:
    return _picture_height(cell) + 5 + _LINE * (1 + len(_caption(cell))) + 4


# The built-in font of the sheet has no glyphs for these.
_PLAIN = str.maketrans({"×": "x", "µ": "u", "–": "-"})


def _write(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: tuple[int, ...]
) -> None:
    pen.text(at, text.translate(_PLAIN), fill=colour, font=ImageFont.load_default(size=size))


def _draw_caption(pen: ImageDraw.ImageDraw, cell: Cell, left: int, top: int) -> None:
    _write(pen, (left, top), cell.heading, _SMALL, _INK)
    for n, line in enumerate(_caption(cell), 1):
        _write(pen, (left, top + n * _LINE), line, _SMALL, _GREY)


def _caption(cell: Cell) -> list[str]:
    """The lines of a cell, broken to its width."""
    font = ImageFont.load_default(size=_SMALL)
    broken: list[str] = []
    for line in cell.lines:
        current = ""
        for word in line.split():
            longer = f"{current} {word}" if current else word
            if current and font.getlength(longer) > cell.width:
                broken.append(current)
                longer = f"   {word}"
            current = longer
        broken.append(current)
    return broken
