"""Previews are looked at: their pictures must show something, and need nothing else."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from volprep.augment import (
    Compose,
    CopyPaste,
    CutNoise,
    Flip,
    GaussianNoise,
    Grayscale,
    Invert,
    MisAlignment,
    MissingParts,
    Rotate,
    Transform,
    compose_from_config,
)
from volprep.geometry import Box
from volprep.report import Cell, render_preview
from volprep.report.charts import draw_histogram
from volprep.report.pictures import View, colour_of, draw_sample, windows_of

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
    titles = [row.title for row in page.sections]
    assert titles == ["Whole pipeline", "Rotate alone", "MisAlignment alone", "Grayscale alone"]
    html = page.html()
    shown = pictures(html)
    cells = [cell for section in page.sections for cell in section.cells]
    assert len(cells) == 4 * (1 + 3 + 1)
    drawn = [picture.flat() for cell in cells for picture in cell.pictures]
    assert all(np.asarray(picture).std() > 10 for picture in drawn)
    assert len(shown) == sum(1 + (p.over is not None) for c in cells for p in c.pictures)
    assert "Case &lt;A&gt;" in html
    assert html.count("<figcaption>") == len(cells)
    assert html.count("<svg") == 4  # the intensities of each row


def test_a_page_needs_no_network_and_no_script_from_elsewhere() -> None:
    html = render_preview(sample(), pipeline(), n=1).html()
    assert not re.search(r"<script [^>]*src|<link|<iframe|https?://|@import|url\(", html)
    assert "default-src 'none'" in html


def test_what_was_drawn_stands_below_each_picture() -> None:
    page = render_preview(sample(), pipeline(), n=4, seed=3)
    compose = pipeline()
    from volprep.randomness import sample_generator

    for k, cell in enumerate(page.sections[0].cells[1:5]):
        words = compose.describe(compose.draw(sample_generator(3, 0, k)))
        words = words or ["left as it is"]
        assert list(cell.lines[: len(words)]) == words
    assert "p = 0.5" in page.sections[1].note
    rotated = {cell.lines[0] for cell in page.sections[1].cells[1:5]}
    assert all(re.fullmatch(r"rotate \d+°", words) for words in rotated)


def test_only_some_transforms_are_shown_on_request() -> None:
    page = render_preview(sample(), pipeline(), n=1, only=["misalignment"])
    assert [row.title for row in page.sections] == ["MisAlignment alone"]
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
    view = View(shape, spacing, [(0, 1)], side=200)
    assert draw_sample(view, np.zeros(shape), at=(0, 0, 0)).flat().size == size


def test_slices_outlines_points_and_vectors_lie_where_they_belong() -> None:
    shape = (5, 20, 20)
    label = np.zeros(shape, np.uint8)
    label[2, 5:15, 5:15] = 7
    image = np.zeros(shape, np.float32)
    image[2, 2, 3] = 1
    view = View(shape, (1, 1, 1), [(0, 1)], side=200)

    def pixels(**overlay: object) -> np.ndarray:
        drawn = draw_sample(view, image, at=(2, 2, 3), **overlay)  # type: ignore[arg-type]
        return np.asarray(drawn.flat())

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
    drawn = np.asarray(draw_sample(view, image, at=(0, 0, 0)).flat())
    assert drawn[10, 50].tolist() != drawn[90, 50].tolist()


def test_windows_and_histograms_survive_odd_images() -> None:
    assert windows_of(np.full((2, 3, 4), 5.0)) == [(5.0, 6.0)]
    assert windows_of(np.full((2, 3, 4), np.nan)) == [(0.0, 1.0)]
    assert "<svg" in draw_histogram(np.full((3, 3), np.nan), []).svg
    ramp = np.arange(1000) % 256
    drawn = draw_histogram(ramp, [ramp + 50.0, ramp - 50.0]).svg
    assert drawn.count('class="bar2"') == 2  # one line for each draw


def test_histograms_have_a_log_axis_with_numbers() -> None:
    values = np.repeat([0, 100, 200], [10**6, 10**3, 10])
    drawn = draw_histogram(values, []).svg
    assert {"0.01%", "1%", "100%"} <= set(re.findall(r">([\d.e-]+%)<", drawn))
    assert {"0", "100", "200"} <= set(re.findall(r">([\d,]+)</text>", drawn))
    outline = re.search(r'<polygon class="bar" points="([^"]+)"', drawn)
    assert outline
    floor = max(float(p.split(",")[1]) for p in outline.group(1).split())
    heights = sorted({floor - float(p.split(",")[1]) for p in outline.group(1).split()})
    # A hundred thousand times rarer, and yet a seventh as high.
    assert heights[-1] / heights[1] < 8


def test_flat_images_have_one_slice() -> None:
    image = np.random.default_rng(0).random((1, 60, 60), np.float32)
    data = {"image": image, "label": (image > 0.9).astype(np.int32)}
    compose = Compose([Flip(p=1), MissingParts(p=1)], (1, 40, 40), {"label": "mask"})
    page = render_preview(data, compose, n=2)
    cells = [c for section in page.sections for c in section.cells[:-1]]
    assert all(p.size == (208, 208) for c in cells for p in c.pictures)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((4, 512, 16), (1, 1, 1)), ((64, 40, 40), (12.5, 1, 1)), ((500, 60, 20), (1, 1, 1))],
)
def test_no_picture_is_a_strip_and_side_views_never_outgrow_the_main_one(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    view = View(shape, spacing, [(0, 1)], side=210)
    z, y, x = view.pixels
    assert max(y, x) == 210
    assert min(y, x) >= 60
    assert z <= min(y, x)
    at = (shape[0] - 1, shape[1] - 1, 0)
    shown = view.shown(at)
    assert shown.contains(Box.at(at, (1, 1, 1)))
    assert Box.whole(shape).contains(shown)
    told = view.says(at)
    for axis, n, kept in zip("zyx", shape, shown.shape, strict=True):
        assert (f"{axis} " in told.split("; ", 1)[-1] and f"of {n}" in told) or kept == n
    # Voxels keep their proportions.
    lengths = [n * s / p for n, s, p in zip(shown.shape[1:], spacing[1:], (y, x), strict=True)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.03)


def page_of(transform: Transform, data: dict[str, object], n: int = 4) -> list[Cell]:
    compose = Compose([transform], (12, 80, 80), {"label": "mask", "skeleton": "points"})
    return render_preview(data, compose, n=n).sections[1].cells


@pytest.mark.parametrize(
    "transform", [MissingParts(), CutNoise(), MisAlignment(displacement=8), CopyPaste()]
)
def test_before_and_after_are_at_one_place_where_much_has_changed(transform: Transform) -> None:
    for cell in page_of(transform, sample())[1:-1]:
        if "left as it is" in cell.lines or any("no " in line for line in cell.lines):
            continue
        assert cell.before is not None or "slices" in " ".join(cell.lines)
        if cell.before is not None:
            before, after = (np.asarray(p.base, np.int16) for p in (cell.before, cell.picture))
            assert (np.abs(before - after) > 20).mean() > 0.003


def test_what_was_copied_is_shown() -> None:
    for cell in page_of(CopyPaste(p=1.0), sample())[1:-1]:
        found = [np.asarray(p.over) for p in (cell.before, cell.picture) if p is not None]
        if len(found) == 2:
            assert (found[0] != found[1]).any()
            break
    else:
        pytest.fail("no draw copied anything")


def test_the_window_follows_values_that_have_left_it() -> None:
    data = sample()
    for cell in page_of(Invert(p=1.0), data)[1:-1]:
        base = np.asarray(cell.picture.base)[..., 0]
        assert 40 < base[:80, :80].mean() < 215  # neither white nor black
    noisy = page_of(GaussianNoise(p=1.0), data)[1:-1]
    assert not any("drawn from" in line for cell in noisy for line in cell.lines)


def test_real_neurons_make_a_page(real_data: Callable[[str], Path]) -> None:
    import tifffile

    folder = real_data("06_fib25_neurons_png")
    files = sorted((folder / "images").glob("*.png"))[:12]
    image = np.stack([np.asarray(Image.open(file)) for file in files])
    label = tifffile.imread(next(folder.rglob("fib25_bodies.tif")))[:12]
    compose = compose_from_config({"AUGMENTOR": {}}, (8, 64, 64))
    page = render_preview({"image": image, "label": label}, compose, n=2, spacing=(0.01,) * 3)
    assert len(page.sections) == 12
    pictures = [p for section in page.sections for cell in section.cells for p in cell.pictures]
    assert all(picture.flat().getextrema()[0][1] > 60 for picture in pictures)
