"""Previews are looked at: their pictures must show something, and need nothing else."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from volprep.augment import (
    Compose,
    CutNoise,
    Flip,
    Grayscale,
    MisAlignment,
    MissingParts,
    Rotate,
    compose_from_config,
)
from volprep.preview import render_preview
from volprep.preview.histogram import draw_histogram
from volprep.preview.orthogonal import View, colour_of, draw_sample, windows_of

SIZE = (6, 40, 48)


def sample(shape: tuple[int, ...] = (12, 80, 80)) -> dict[str, object]:
    rng = np.random.default_rng(0)
    label = np.zeros(shape[-3:], np.uint64)
    points = {}
    for n, centre in enumerate(rng.integers(5, np.array(shape[-3:]) - 5, (20, 3)), 1):
        instance = 2**40 + n
        label[tuple(slice(c - 4, c + 5) for c in centre)] = instance
        points[instance] = centre[None].astype(np.float32)
    points = {i: p for i, p in points.items() if np.any(label == i)}
    image = ndimage.gaussian_filter((label > 0) * 100.0 + 50 * rng.random(shape[-3:]), 1)
    return {"image": image.astype(np.uint8), "label": label, "skeleton": points}


def pictures(html: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def pipeline(**options: object) -> Compose:
    targets = {"label": "mask", "skeleton": "points"}
    transforms = [Rotate(p=0.5), MisAlignment(displacement=8), Grayscale(), CutNoise(enabled=False)]
    return Compose(transforms, SIZE, targets, **options)  # type: ignore[arg-type]


def test_a_page_shows_the_pipeline_and_every_transform_and_no_picture_is_blank() -> None:
    page = render_preview(sample(), pipeline(), n=3, spacing=(0.05, 0.01, 0.01), title="Case <A>")
    titles = [row.title for row in page.rows]
    assert titles == ["Whole pipeline", "Rotate alone", "MisAlignment alone", "Grayscale alone"]
    html = page.html()
    shown = pictures(html)
    assert len(shown) == 4 * (1 + 3 + 1)
    assert all(picture.std() > 10 for picture in shown)
    assert "Case &lt;A&gt;" in html
    assert html.count("<figcaption>") == len(shown)


def test_a_page_needs_no_scripts_and_no_network() -> None:
    html = render_preview(sample(), pipeline(), n=1).html()
    assert not re.search(r"<script|<link|<iframe|https?://|@import|url\(", html)


def test_what_was_drawn_stands_below_each_picture() -> None:
    page = render_preview(sample(), pipeline(), n=4, seed=3)
    compose = pipeline()
    from volprep.randomness import sample_generator

    for k, cell in enumerate(page.rows[0].cells[1:5]):
        words = compose.describe(compose.draw(sample_generator(3, 0, k)))
        assert list(cell.lines[:-1]) == (words or ["left as it is"])
    assert "p = 0.5" in page.rows[1].note
    rotated = {cell.lines[0] for cell in page.rows[1].cells[1:5]}
    assert all(re.fullmatch(r"rotate \d+°", words) for words in rotated)


def test_only_some_transforms_are_shown_on_request() -> None:
    page = render_preview(sample(), pipeline(), n=1, only=["misalignment"])
    assert [row.title for row in page.rows] == ["MisAlignment alone"]
    with pytest.raises(ValueError, match="'cut_noise' is not in the pipeline, which has rotate"):
        render_preview(sample(), pipeline(), only=["cut_noise"])


def test_a_preview_is_the_same_each_time() -> None:
    first, again = (render_preview(sample(), pipeline(), n=2).html() for _ in range(2))
    assert first == again
    assert first != render_preview(sample(), pipeline(), n=2, seed=1).html()


def test_the_sheet_holds_every_picture(tmp_path: Path) -> None:
    page = render_preview(sample(), pipeline(), n=2)
    page.write(tmp_path / "page.html", tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.ndim == 3
    dark = sheet.min(-1) < 200
    # Rows of pictures show as bands of dark pixels, columns as blocks of them.
    assert dark.mean() > 0.05
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page.html()


@pytest.mark.parametrize(
    ("shape", "spacing", "size"),
    [
        ((10, 100, 100), (1, 1, 1), (200 + 2 + 20, 200 + 2 + 20)),
        ((10, 100, 100), (5, 1, 1), (200 + 2 + 100, 200 + 2 + 100)),
        ((10, 50, 100), (1, 1, 1), (200 + 2 + 20, 100 + 2 + 20)),
        ((10, 50, 100), (1, 2, 1), (200 + 2 + 20, 200 + 2 + 20)),
        ((1, 50, 100), (1, 1, 1), (200, 100)),
    ],
)
def test_pictures_have_the_proportions_of_the_sample(
    shape: tuple[int, int, int], spacing: tuple[int, int, int], size: tuple[int, int]
) -> None:
    view = View(shape, spacing, [(0, 1)], side=200)
    assert view.size == size
    assert draw_sample(view, np.zeros(shape), at=(0, 0, 0)).size == size


def test_slices_outlines_points_and_vectors_lie_where_they_belong() -> None:
    shape = (5, 20, 20)
    label = np.zeros(shape, np.uint8)
    label[2, 5:15, 5:15] = 7
    image = np.zeros(shape, np.float32)
    image[2, 2, 3] = 1
    view = View(shape, (1, 1, 1), [(0, 1)], side=200)

    def pixels(**overlay: object) -> np.ndarray:
        return np.asarray(draw_sample(view, image, at=(2, 2, 3), **overlay))  # type: ignore[arg-type]

    plain = pixels()
    assert plain[25, 35].tolist() == [255, 255, 255]  # (y, x) 2, 3 at ten pixels a voxel
    assert plain[25, 202 + 25].tolist() == [255, 255, 255]  # the same voxel in (y, z)
    assert plain[202 + 25, 35].tolist() == [255, 255, 255]  # and in (z, x)
    assert plain[100, 100].tolist() == [0, 0, 0]
    outlined = pixels(label=label)
    assert outlined[50, 100].any()  # on the rim
    assert not outlined[100, 100].any()  # inside
    points = {7: np.array([[2, 10, 10], [4, 12, 12]])}
    dotted = pixels(points=points)
    assert dotted[105, 105].tolist() == list(colour_of(7))
    assert not dotted[125, 125].any()  # on another section
    target = np.broadcast_to(np.array([2, 10, 10], np.float32)[:, None, None, None], (3, *shape))
    assert (pixels(label=label, vectors=target) != outlined).sum() > 100


def test_several_channels_are_told_apart_by_colour() -> None:
    image = np.zeros((2, 1, 10, 10))
    image[0, 0, :5] = 1
    image[1, 0, 5:] = 1
    view = View((1, 10, 10), (1, 1, 1), [(0, 1), (0, 1)], side=100)
    drawn = np.asarray(draw_sample(view, image, at=(0, 0, 0)))
    assert drawn[10, 50].tolist() != drawn[90, 50].tolist()


def test_windows_and_histograms_survive_odd_images() -> None:
    assert windows_of(np.full((2, 3, 4), 5.0)) == [(5.0, 6.0)]
    blank = np.asarray(draw_histogram(np.full((3, 3), np.nan), []))
    assert blank.std() > 0
    ramp = np.arange(1000) % 256
    drawn = np.asarray(draw_histogram(ramp, [ramp + 50.0]))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) >= 4


def test_flat_images_have_one_slice() -> None:
    image = np.random.default_rng(0).random((1, 60, 60), np.float32)
    data = {"image": image, "label": (image > 0.9).astype(np.int32)}
    compose = Compose([Flip(p=1), MissingParts(p=1)], (1, 40, 40), {"label": "mask"})
    page = render_preview(data, compose, n=2)
    assert all(c.picture.size == (208, 208) for row in page.rows for c in row.cells[:-1])


def test_real_neurons_make_a_page(real_data: Callable[[str], Path]) -> None:
    import tifffile

    folder = real_data("06_fib25_neurons_png")
    files = sorted((folder / "images").glob("*.png"))[:12]
    image = np.stack([np.asarray(Image.open(file)) for file in files])
    label = tifffile.imread(next(folder.rglob("fib25_bodies.tif")))[:12]
    compose = compose_from_config({"AUGMENTOR": {}}, (8, 64, 64))
    page = render_preview({"image": image, "label": label}, compose, n=2, spacing=(0.01,) * 3)
    assert len(page.rows) == 12
    assert all(cell.picture.getextrema()[0][1] > 60 for row in page.rows for cell in row.cells)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    page = render_preview(sample(), pipeline(), n=2, title="Seen in a browser")
    page.write(tmp_path / "page.html")
    subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--hide-scrollbars",
            "--window-size=1300,1500", f"--screenshot={tmp_path / 'shot.png'}",
            (tmp_path / "page.html").as_uri(),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    shot = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB"))
    colours = len(np.unique(shot.reshape(-1, 3), axis=0))
    assert colours > 500
    assert (shot.min(-1) < 100).mean() > 0.02
    # The first picture stands in the upper left part of the page.
    assert shot[150:450, 40:300].std() > 20
