"""Pages in a real browser: no error, nothing overflows, no picture is blank, tables sort."""

from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from volprep import pipeline
from volprep.config import load_config
from volprep.pipeline.preview import preview_augment
from volprep.pipeline.preview_patches import preview_patches

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    pytest.skip("playwright is not installed", allow_module_level=True)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
# Elements that stick out of the window, unless something inside it lets them scroll.
OUTSIDE = """() => [...document.querySelectorAll('body *')].filter(element => {
  const box = element.getBoundingClientRect();
  if (!box.width) return false;
  for (let each = element; each; each = each.parentElement) // clipped, or laid over a picture
    if (getComputedStyle(each).position === 'absolute') return false;
  return box.right > innerWidth + 1 || box.left < -1;
}).map(element => `${element.tagName} ${element.className} ${element.textContent.slice(0, 40)}`)"""
# The spread of the grey values of each picture, and of what is not clear of what lies over it.
BLANK = """async () => {
  const found = [];
  for (const image of document.querySelectorAll('.pic img')) {
    await image.decode();
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const pen = canvas.getContext('2d');
    pen.drawImage(image, 0, 0);
    const data = pen.getImageData(0, 0, canvas.width, canvas.height).data;
    const seen = new Set();
    for (let i = 0; i < data.length; i += 4)
      seen.add(data[i] + ',' + data[i + 1] + ',' + data[i + 3]);
    found.push([image.alt || image.className, seen.size]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / "data" / kind).mkdir(parents=True)
    for number in range(8):
        shape = (12, 40 + 4 * number, 48)
        label = np.zeros(shape, np.uint16)
        for n, (z, y, x) in enumerate(rng.integers(0, (6, 30, 38), (number + 4, 3)), 1):
            label[z : z + 5, y : y + 9, x : x + 9] = n
        image = ((label > 0) * 90 + rng.integers(0, 120, shape)).astype(np.uint8)
        name = f"a_rather_long_name_of_a_case_{'abcdefgh'[7 - number]}.tif"
        tifffile.imwrite(folder / "data/images" / name, image)
        tifffile.imwrite(folder / "data/labels" / name, label)
    config = {
        "data": {"root": str(folder / "data"), "spacing": [0.3, 0.1, 0.1]},
        "plan": {"patch_size": [8, 24, 24]},
        "patching": {"patches_per_case": 4},
        "augment": ["flip", {"misalignment": {"displacement": 5}}, "invert"],
        "targets": ["boundary"],
        "output": {"dir": str(folder / "out")},
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    loaded = load_config(folder / "c.yaml")
    pipeline.prepare(loaded)
    preview_augment(loaded, n=2).write(folder / "augment.html")
    _, drawn = next(iter(preview_patches(loaded)))
    drawn.page.write(folder / "patches.html")
    faulty = Path(shutil.copytree(folder / "data", folder / "faulty"))
    (faulty / "labels" / "a_rather_long_name_of_a_case_c.tif").write_bytes(b"no labels at all")
    refused = load_config(folder / "c.yaml", {"data.root": str(faulty)})
    (folder / "refused.html").write_text(pipeline.report_of_config(refused), encoding="utf-8")
    return {
        "refused": folder / "refused.html",
        "report": folder / "out" / "report.html",
        "augment": folder / "augment.html",
        "patches": folder / "patches.html",
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """Opens a page and makes the test fail if it asks for anything or says anything."""
    contexts, said = [], []

    def open_page(name: str, width: int = 1600, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("requestfailed", lambda request: said.append(request.url[:80]))
        page.goto(pages[name].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.mark.parametrize("name", ["report", "augment", "patches", "refused"])
@pytest.mark.parametrize("width", [400, 1600])
def test_nothing_overflows_and_nothing_is_blank(opened: Any, name: str, width: int) -> None:
    page = opened(name, width)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE) == []
    # Nor does a table have columns that are only seen when it is scrolled.
    cut = "[...document.querySelectorAll('.tablewrap')].filter(e => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{cut}.map(e => e.textContent.slice(0, 60))") == []
    pictures = page.evaluate(BLANK)
    assert len(pictures) > 4
    assert [alt for alt, colours in pictures if colours < 2] == []


def test_commands_name_the_folder_in_which_the_page_lies(
    opened: Any, pages: dict[str, Path]
) -> None:
    page = opened("report")
    shown = page.locator(".steps").inner_text()
    assert f"volprep verify {pages['report'].parent}" in shown
    assert "PATCHES" not in page.locator("#what-to-do-next").inner_text()


def test_columns_sort_and_say_so(opened: Any) -> None:
    page = opened("report")
    rows = page.locator("#cases tbody tr")
    names = [text[-1] for text in page.locator("#cases tbody td.k").all_inner_texts()]
    assert names == sorted(names)
    head = page.locator("#cases th", has_text="Voxels")
    for way, order in (("ascending", sorted), ("descending", lambda v: sorted(v, reverse=True))):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == way
        sizes = [
            int(np.prod([int(n) for n in text.split(" × ")]))
            for text in page.locator("#cases tbody td[data-name=Voxels]").all_inner_texts()
        ]
        assert sizes == list(order(sizes))
        assert len(set(sizes)) == 8
    assert rows.count() == 8


def test_rows_are_filtered_by_words_and_by_side(opened: Any) -> None:
    page = opened("report")
    shown = page.locator("#cases tbody tr:visible")
    count = page.locator("#cases output")
    page.get_by_label("Filter").fill("case_c")
    assert shown.count() == 1
    assert count.inner_text() == "1 of 8 shown"
    page.get_by_label("Filter").fill("")
    page.get_by_label("Show").select_option("validation")
    held_out = shown.count()
    page.get_by_label("Show").select_option("training")
    assert 0 < held_out < 8
    assert shown.count() == 8 - held_out


def test_a_narrow_page_sorts_by_a_list(opened: Any) -> None:
    page = opened("report", 400)
    page.get_by_label("Sort by").select_option("Case, descending")
    names = [text[-1] for text in page.locator("#cases tbody td.k").all_inner_texts()]
    assert names == sorted(names, reverse=True)
    page.get_by_label("Sort by").select_option("as listed")
    names = [text[-1] for text in page.locator("#cases tbody td.k").all_inner_texts()]
    assert names == sorted(names)


def test_the_page_is_used_by_keyboard(opened: Any) -> None:
    page = opened("report")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    head = page.locator("#cases th button").first
    head.focus()
    page.keyboard.press("Enter")
    assert page.locator("#cases th[aria-sort=ascending]").count() == 1
    picture = page.locator("#training-samples button.pic").first
    picture.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()
    large = page.locator("dialog img").first.bounding_box()
    assert large["width"] > 1.5 * picture.bounding_box()["width"]
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_outlines_can_be_hidden(opened: Any) -> None:
    page = opened("report")
    over = page.locator("#training-samples img.over").first
    assert over.is_visible()
    page.get_by_label("outlines").uncheck()
    assert not over.is_visible()


def test_every_control_and_picture_is_named_for_those_who_hear_the_page(opened: Any) -> None:
    page = opened("report")
    unnamed = page.evaluate("""() => [...document.querySelectorAll('button, input, select, svg')]
      .filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length
        || e.querySelector('img')?.alt)).map(e => e.outerHTML.slice(0, 80))""")
    assert unnamed == []
    assert page.locator("h1").count() == 1
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(e => +e.tagName[1])")
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def brightness(page: Any) -> float:
    shot = Image.open(io.BytesIO(page.screenshot())).convert("L")
    return float(np.median(np.asarray(shot)))


def contrast(page: Any, selector: str) -> float:
    """Of text against what is behind it, by WCAG's formula."""
    return float(
        page.evaluate(
            """(selector) => {
      const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).slice(0, 3)
        .map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const worst = [];
      for (const element of document.querySelectorAll(selector)) {
        let behind = element;
        while (behind && /rgba\\(0, 0, 0, 0\\)/.test(getComputedStyle(behind).backgroundColor))
          behind = behind.parentElement;
        const [a, b] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]
          .map(light);
        worst.push((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
      }
      return Math.min(...worst);
    }""",
            selector,
        )
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_read_in_light_and_dark(opened: Any, scheme: str) -> None:
    page = opened("report", color_scheme=scheme)
    assert (brightness(page) > 200) == (scheme == "light")
    assert (brightness(page) < 60) == (scheme == "dark")
    for selector in (".note", "td", "th", "figcaption", "h2", ".verdict", ".chip", "summary"):
        assert contrast(page, selector) >= 4.5, selector
    page = opened("refused", color_scheme=scheme)
    for selector in (".findings p", ".findings b", ".chip", ".verdict", "code", ".tiles dt"):
        assert contrast(page, selector) >= 4.5, selector


def test_the_page_is_printed_on_white_without_its_tools(opened: Any) -> None:
    page = opened("report", color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert brightness(page) > 200
    assert not page.locator("nav").is_visible()
    assert not page.locator("#cases-tools").is_visible()
    page = opened("report", 718)  # a sheet of A4
    page.emulate_media(media="print")
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate("getComputedStyle(document.querySelector('#cases td')).display") == (
        "table-cell"
    )


def test_the_page_asks_for_nothing_more(opened: Any) -> None:
    page = opened("report")
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0
