"""Rows of captioned pictures, as one HTML page and as one contact sheet."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

__all__ = ["Cell", "Page", "Row"]

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem 2.25rem 3rem; background: #f4f5f7; color: #1d2228;
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
header { max-width: 70rem; margin-bottom: 1.75rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .35rem; letter-spacing: -.01em; }
header p { margin: .2rem 0; color: #4a525c; }
section { background: #fff; border: 1px solid #e1e4e8; border-radius: 10px;
  padding: 1.1rem 1.25rem 1.25rem; margin-bottom: 1.25rem; }
h2 { font-size: 1.08rem; margin: 0; letter-spacing: -.005em; }
.note { margin: .1rem 0 .9rem; color: #66707b; font-size: .86rem; }
.cells { display: flex; flex-wrap: wrap; gap: 1.1rem 1rem; align-items: flex-start; }
figure { margin: 0; }
figure img { display: block; border-radius: 3px; image-rendering: pixelated; }
figcaption { margin-top: .4rem; font-size: .78rem; line-height: 1.38; color: #3c444d; }
figcaption strong { display: block; color: #1d2228; font-weight: 600; }
figcaption ul { margin: 0; padding: 0; list-style: none; }
figcaption li { padding-left: .6rem; text-indent: -.6rem; }
@media (max-width: 600px) { body { padding: 1rem; } }
""".strip()


@dataclass(frozen=True)
class Cell:
    """One picture, its heading and what is to be said below it."""

    picture: Image.Image
    heading: str
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Row:
    """Pictures that belong together."""

    title: str
    note: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Page:
    """A page of rows, as HTML that needs nothing else, or as one picture.

    Parameters
    ----------
    title : str
    lines : sequence of str
        What is to be known about all pictures.
    rows : sequence of Row
    """

    title: str
    lines: Sequence[str]
    rows: Sequence[Row]

    def html(self) -> str:
        """The page with its pictures inside: no scripts, no links, no network."""
        head = "".join(f"<p>{escape(line)}</p>" for line in self.lines)
        body = "\n".join(_row_html(row) for row in self.rows)
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n"
            f"<header><h1>{escape(self.title)}</h1>{head}</header>\n{body}\n"
            "</body>\n</html>\n"
        )

    def sheet(self) -> Image.Image:
        """The page as one RGB picture."""
        return _draw_sheet(self)

    def write(self, html: str | Path | None = None, sheet: str | Path | None = None) -> None:
        """Write the HTML page, the PNG contact sheet, or both."""
        if html is not None:
            Path(html).write_text(self.html(), encoding="utf-8")
        if sheet is not None:
            self.sheet().save(sheet, format="PNG")


def _row_html(row: Row) -> str:
    cells = "\n".join(_cell_html(cell) for cell in row.cells)
    return (
        f"<section>\n<h2>{escape(row.title)}</h2>\n"
        f'<p class="note">{escape(row.note)}</p>\n<div class="cells">\n{cells}\n</div>\n</section>'
    )


def _cell_html(cell: Cell) -> str:
    width, height = cell.picture.size
    lines = "".join(f"<li>{escape(line)}</li>" for line in cell.lines)
    alt = escape(", ".join([cell.heading, *cell.lines]), quote=True)
    return (
        f'<figure style="width:{_cell_width(cell)}px">'
        f'<img src="data:image/png;base64,{_base64(cell.picture)}" '
        f'width="{width}" height="{height}" alt="{alt}">'
        f"<figcaption><strong>{escape(cell.heading)}</strong>"
        f"{f'<ul>{lines}</ul>' if lines else ''}</figcaption></figure>"
    )


def _base64(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


_MARGIN, _GAP, _LINE, _SMALL = 28, 16, 15, 12
_INK, _GREY = (29, 34, 40), (102, 112, 123)


def _draw_sheet(page: Page) -> Image.Image:
    """Rows below each other, cells beside each other."""
    widths = [sum(_cell_width(c) + _GAP for c in row.cells) for row in page.rows]
    width = 2 * _MARGIN + max([600, *widths])
    head = 46 + 20 * len(page.lines) + 14
    heights = [58 + max(_cell_height(cell) for cell in row.cells) + 18 for row in page.rows]
    sheet = Image.new("RGB", (width, _MARGIN + head + sum(heights)), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    _write(pen, (_MARGIN, _MARGIN), page.title, 24, _INK)
    for n, line in enumerate(page.lines):
        _write(pen, (_MARGIN, _MARGIN + 38 + 20 * n), line, 14, _GREY)
    top = _MARGIN + head
    for row, height in zip(page.rows, heights, strict=True):
        pen.line((_MARGIN, top - 8, width - _MARGIN, top - 8), fill=(225, 228, 232))
        _write(pen, (_MARGIN, top), row.title, 17, _INK)
        _write(pen, (_MARGIN, top + 24), row.note, _SMALL, _GREY)
        left = _MARGIN
        for cell in row.cells:
            sheet.paste(cell.picture, (left, top + 48))
            _draw_caption(pen, cell, left, top + 48 + cell.picture.height + 5)
            left += _cell_width(cell) + _GAP
        top += height
    return sheet


def _cell_width(cell: Cell) -> int:
    return max(cell.picture.width, 150)


def _cell_height(cell: Cell) -> int:
    return cell.picture.height + 5 + _LINE * (1 + len(_caption(cell))) + 4


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
            if current and font.getlength(longer) > _cell_width(cell):
                broken.append(current)
                longer = f"   {word}"
            current = longer
        broken.append(current)
    return broken
