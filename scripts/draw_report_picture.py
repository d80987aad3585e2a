"""Draw the head of a report as a picture, as README shows one.

    volprep init gonuclear -o ovule.yaml
    volprep prepare ovule.yaml
    python scripts/draw_report_picture.py ovule_patches/report.html docs/report.png

`docs/report.png` is of one volume of nuclei of an Arabidopsis ovule, `1135_mini.h5`, which
GoNuclear ships with its tests under the MIT licence (github.com/kreshuklab/go-nuclear,
`stardist/tests/data`). The browser is Chromium, driven by playwright (`pip install playwright`).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from PIL import Image

_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def draw(page: Path, picture: Path, width: int) -> None:
    """Write what is above the sections of a page, in light colours."""
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=_FLAGS)
        size = {"width": width, "height": 900}
        shown = browser.new_page(viewport=size, color_scheme="light")  # type: ignore[arg-type]
        shown.goto(page.resolve().as_uri())
        height = shown.evaluate("document.querySelector('nav').getBoundingClientRect().top")
        shown.screenshot(
            path=picture, clip={"x": 0, "y": 0, "width": width, "height": height}, full_page=True
        )
        browser.close()
    # Few colours do, and a picture in a repository had better be small.
    Image.open(picture).convert("P", palette=Image.Palette.ADAPTIVE).save(picture, optimize=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    asked = parser.parse_args()
    draw(asked.page, asked.picture, asked.width)


if __name__ == "__main__":
    main()
