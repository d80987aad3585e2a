"""The report: in every set, of the same bytes each time, and true to what the loader gives."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import yaml
from typer.testing import CliRunner

from volprep import pipeline
from volprep.autoconfig import make_plan
from volprep.cli import app
from volprep.config import load_config
from volprep.errors import DataCheckError, StoreError
from volprep.findings import Finding
from volprep.fingerprint import Fingerprint
from volprep.loader import PatchDataset
from volprep.pipeline.report import samples_of
from volprep.report import CaseView, Overview, SampleView, render_report
from volprep.report.charts import Curve, draw_bars, draw_curves, number_text
from volprep.report.pictures import Picture, View, draw_sample
from volprep.splits import SplitPart, Splits
from volprep.store import PatchStore, verify_set

SHAPE = (16, 48, 56)


def cell(seed: int, shape: tuple[int, int, int] = SHAPE) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint16)
    for number, corner in enumerate(
        rng.integers(0, np.maximum(1, np.array(shape) - 8), (12, 3)), 1
    ):
        z, y, x = corner
        label[z : z + 5, y : y + 8, x : x + 8] = number
    return ((label > 0) * 120 + rng.integers(0, 90, shape)).astype(np.uint8), label


def make_data(root: Path, names: list[str], shape: tuple[int, int, int] = SHAPE) -> Path:
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for seed, name in enumerate(names):
        image, label = cell(seed, shape)
        tifffile.imwrite(root / "images" / f"{name}.tif", image)
        tifffile.imwrite(root / "labels" / f"{name}.tif", label)
    return root


def write_config(root: Path, where: Path, **sections: Any) -> Path:
    where.mkdir(exist_ok=True)
    path = where / "volprep.yaml"
    document = {
        "data": {"root": str(root), "spacing": [0.3, 0.1, 0.1]},
        "plan": {"patch_size": [8, 24, 24]},
        "patching": {"patches_per_case": 6},
        "augment": ["flip", "rotate", "grayscale"],
        "output": {"dir": str(where / "out")},
        **sections,
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(
        tmp_path_factory.mktemp("report data") / "cells µ <b>", ["one", "two", "three"]
    )


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    targets = [{"affinities": {"offsets": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]}}, "boundary"]
    sections = {"targets": targets, "skeletons": {"enabled": True}}
    config = write_config(data, tmp_path_factory.mktemp("made"), **sections)
    return pipeline.prepare(load_config(config)).path


def page_of(made: Path) -> str:
    return (made / "report.html").read_text(encoding="utf-8")


def words_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_a_set_has_its_report_and_verify_looks_at_it(made: Path, tmp_path: Path) -> None:
    assert not list(verify_set(made))
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    with (copy / "report.html").open("a") as file:
        file.write(" ")
    (fault,) = verify_set(copy)
    assert fault.path.name == "report.html"
    assert "the page to look at" in fault.meaning
    with pytest.raises(StoreError, match=r"report\.html: damaged .*volprep repair"):
        pipeline.report_of_set(copy)


def test_a_damaged_report_is_made_again_byte_for_byte(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(made, copy)
    (copy / "report.html").write_text("gone")
    pipeline.repair(copy)
    assert page_of(copy) == page_of(made)


def test_a_report_does_not_depend_on_where_and_when_it_is_made(data: Path, tmp_path: Path) -> None:
    first, second = (
        page_of(pipeline.prepare(load_config(write_config(data, tmp_path / name, **more))).path)
        for name, more in (("a", {}), ("b", {"compute": {"workers": 1}}))
    )
    assert first == second
    assert str(tmp_path) not in first


def test_nothing_is_drawn_where_nothing_has_changed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_config(data, tmp_path)
    pipeline.prepare(load_config(path))
    monkeypatch.setattr("volprep.pipeline.report.render", lambda *_, **__: 1 / 0)
    pipeline.prepare(load_config(path))
    assert pipeline.foresee(load_config(path)).complete
    with pytest.raises(ZeroDivisionError):  # other augmentations, other samples
        pipeline.prepare(load_config(write_config(data, tmp_path, augment=["flip"])))


def test_samples_are_byte_for_byte_what_the_loader_gives(made: Path) -> None:
    store = PatchStore(made)
    html = page_of(made)
    for split, augment in (("train", True), ("val", False)):
        dataset = PatchDataset(made, split, augment=augment)  # type: ignore[arg-type]
        samples = samples_of(store, split)
        assert len(samples) >= 2
        for sample in samples:
            number = int(sample.name.rsplit(" ", 1)[1])
            loaded = dataset[0, number]
            assert dataset.cases[loaded["case"]] == sample.name.split(",")[0]
            for name, array in sample.arrays.items():
                given = loaded[name].numpy()
                assert (given.dtype, given.shape) == (array.dtype, array.shape)
                assert given.tobytes() == array.tobytes()
            digest = hashlib.sha256(loaded["image"].numpy().tobytes()).hexdigest()
            assert f"image SHA-256 {digest[:12]}" in html
        assert {"image", "label", "affinities", "boundary"} <= set(samples[0].arrays)
        assert {"offset", "skeleton_mask"} <= set(samples[0].arrays)


def test_a_set_of_volumes_has_the_same_report(data: Path, tmp_path: Path) -> None:
    config = write_config(data, tmp_path, output={"dir": str(tmp_path / "out"), "store": "volumes"})
    out = pipeline.prepare(load_config(config)).path
    html = page_of(out)
    for title in ("Training samples", "Validation tiles", "Splits and coverage"):
        assert f">{title}</h2>" in html
    dataset = PatchDataset(out, "train", augment=True)
    digest = hashlib.sha256(dataset[0, 0]["image"].numpy().tobytes()).hexdigest()
    assert f"image SHA-256 {digest[:12]}" in html


def test_what_a_user_wants_to_know_is_told(made: Path) -> None:
    html = page_of(made)
    words = words_of(html)
    assert "3 cases: volumes of 16 × 48 × 56 voxels (median)" in words
    assert "cells µ &lt;b&gt;" in html  # the folder's name, escaped
    for title in (
        "Findings", "Cases", "Intensities", "Objects", "Plan", "Splits and coverage",
        "Training samples", "Validation tiles", "Provenance", "What to do next",
    ):  # fmt: skip
        assert f">{title}</h2>" in html
    assert "8 × 24 × 24" in words
    assert "given by you" in words
    assert "With another memory" in words
    assert "300 × 100 × 100 nm" in words or "0.3 × 0.1 × 0.1 µm" in words
    manifest = json.loads((made / "manifest.json").read_text(encoding="utf-8"))
    for each in manifest["inputs"]:
        assert each["sha256"][:16] in html
    assert "volprep verify PATCHES" in words
    assert f"volprep verify {shlex.quote(str(made))}" in words_of(pipeline.report_of_set(made))
    assert "to where voxels point" in words
    assert "3 of 3 channels as red, green, blue" in words
    for case in ("one", "two", "three"):
        assert f">{case}</td>" in html


def test_a_page_needs_nothing_from_elsewhere(made: Path) -> None:
    html = page_of(made)
    assert not re.search(r"<script [^>]*src|<link|<iframe|@import|url\(", html)
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)
    assert "default-src 'none'" in html


def test_every_picture_has_words_and_every_control_a_name(made: Path) -> None:
    html = page_of(made)
    for image in re.findall(r"<img[^>]*>", html):
        assert 'alt="' in image
        assert ('class="over"' in image) == ('alt=""' in image)
    for chart in re.findall(r"<svg[^>]*>", html):
        assert 'role="img"' in chart
        assert 'aria-label="' in chart
    assert html.count("<label") >= html.count("<select") + html.count("<input")
    assert '<html lang="en">' in html


def test_the_command_writes_the_page_with_what_its_making_took(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "look.html"
    done = CliRunner().invoke(app, ["report", str(made), "-o", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"html": str(out), "bytes": out.stat().st_size}
    words = words_of(out.read_text(encoding="utf-8"))
    assert "Time and memory of the run that finished it" in words
    assert re.search(r"patches \(train\) \d+\.\d s \d+(\.\d+)? [MG]iB", words)
    assert "Time and memory of the run" not in words_of(page_of(made))


def test_the_command_shows_a_config_and_prepares_nothing(data: Path, tmp_path: Path) -> None:
    config = write_config(data, tmp_path)
    out = tmp_path / "plan.html"
    before = sorted(tmp_path.iterdir())
    options = ["--set", "plan.patch_size=[8,16,16]", "-o", str(out)]
    done = CliRunner().invoke(app, ["report", str(config), *options])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(out)
    assert sorted(tmp_path.iterdir()) == sorted([*before, out])
    words = words_of(out.read_text(encoding="utf-8"))
    assert "Nothing is prepared yet. Patches will be 8 × 16 × 16 voxels" in words
    assert f"volprep prepare {config}" in words
    assert "Training patches" in words
    assert "Training samples" not in words


def test_data_that_prepare_refuses_has_a_page_of_what_is_wrong(data: Path, tmp_path: Path) -> None:
    root = tmp_path / "bad"
    shutil.copytree(data, root)
    tifffile.imwrite(root / "labels" / "one.tif", np.zeros((9, 14, 15), np.uint8))
    (root / "images" / "two.tif").write_bytes(b"II*\0 and no more")
    config = write_config(root, tmp_path)
    with pytest.raises(DataCheckError, match=r"one .*one\.tif"):
        pipeline.prepare(load_config(config))
    out = tmp_path / "bad.html"
    done = CliRunner().invoke(app, ["report", str(config), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(out)
    assert "2 errors: prepare refuses this data, and the page says why" in done.stderr
    html = out.read_text(encoding="utf-8")
    words = words_of(html)
    assert "Not fit for training: 2 errors" in words
    assert "shape (9, 14, 15) and the image (16, 48, 56)" in words
    assert "Error: unreadable in two" in words
    assert "volprep explain shape-mismatch" in words
    rows = dict(
        (re.search(r'class="k"[^>]*>(\w+)<', row)[1], row)  # type: ignore[index]
        for row in re.findall(r"<tr data-side.*?</tr>", html, re.DOTALL)
    )
    assert list(rows) == ["one", "two", "three"]  # those with errors first
    assert "its label is not drawn" in rows["one"]
    assert 'class="over"' not in rows["one"]
    assert "<img" not in rows["two"]
    assert "not read" in rows["two"]
    assert 'class="over"' in rows["three"]  # sound, with its outlines
    assert 'data-side="without errors"' in rows["three"]
    for title in ("Plan", "Splits and coverage", "Training samples"):
        assert f">{title}</h2>" not in html


def test_what_is_no_set_and_no_config_has_no_report(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(tmp_path / "nothing")])
    assert done.exit_code == 6


def test_of_many_cases_some_are_pictured_and_that_is_told(tmp_path: Path) -> None:
    letters = "abcdefghij"
    names = [f"{a}{b} cell" for a in letters for b in letters[:6]]
    root = make_data(tmp_path / "many", names, (6, 20, 20))
    config = write_config(root, tmp_path / "m", plan={"patch_size": [4, 16, 16]})
    page = page_of(pipeline.prepare(load_config(config)).path)
    assert "40 of 60 cases are pictured, evenly sampled." in words_of(page)
    rows = re.findall(r"<tr data-side.*?</tr>", page, re.DOTALL)
    assert len(rows) == 60
    assert sum("<img" in row for row in rows) == 40


def test_sparse_annotation_classes_and_stray_values_are_shown_and_said(tmp_path: Path) -> None:
    root = make_data(tmp_path / "sparse", ["one", "two"])
    (root / "known").mkdir()
    for name in ("one", "two"):
        image = tifffile.imread(root / f"images/{name}.tif").astype(np.uint16)
        image[0, 0, :2] = 60000  # far out, and so few that clipping leaves them out
        label = tifffile.imread(root / f"labels/{name}.tif") % 3
        label[np.arange(16) != 3] = 0
        label[3, :8, :8] = 1
        known = np.zeros(image.shape, np.uint8)
        known[3] = 1
        for kind, array in (("images", image), ("labels", label), ("known", known)):
            tifffile.imwrite(root / f"{kind}/{name}.tif", array)
    where = {"root": str(root), "spacing": [0.3, 0.1, 0.1], "mask_dir": "known"}
    config = write_config(root, tmp_path / "s", data={**where, "label_kind": "classes"})
    html = pipeline.report_of_config(load_config(config))
    words = words_of(html)
    assert "outlines are labels, blue is not annotated." in words
    assert words_of(html).count("Classes") >= 3, "the tile, the column and the section"
    assert "Objects" not in words
    # The middle slice holds no label: one is looked at that does, in thumbnails and in maps.
    assert "slices z 3," in html
    assert "through z 3," in words
    assert "% of all voxels lie beyond, in 0 to 60,000" in words
    chart = html.split('aria-label="Grey values, channel 0"')[1].split("</svg>")[0]
    assert ">200<" in chart
    assert "60,000" not in chart


def test_classes_that_do_not_train_are_named(made: Path) -> None:
    few = replace(overview(1), classes={0: "background", 1: "nucleus", 99: "rare"})
    found = Fingerprint.from_dict(json.loads((made / "fingerprint.json").read_text("utf-8")))
    page = render_report(replace(few, fingerprint=found))
    assert page.verdict == ("warn", "Usable; 1 of 3 classes not seen in training")
    words = words_of(page.html())
    assert "Of the 3 classes 1 do not occur in what trains, and cannot be learnt: rare." in words


def overview(n: int) -> Overview:
    """A set of many cases, and pictures of noise, which no compression makes small."""
    rng = np.random.default_rng(0)
    picture = draw_sample(
        View((64, 256, 256), (1, 1, 1), [(0, 1)], side=96, row=True), rng.random((64, 256, 256)),
        at=(32, 128, 128), label=rng.integers(0, 3, (64, 256, 256)),
    )  # fmt: skip
    cases = [
        CaseView(
            f"a case with a long name {k}", "training" if k % 5 else "validation",
            (1, 64, 256, 256), (0.03, 0.004, 0.004), "uint8", True, (64, 0), 0.1,
            picture if k % 12 == 0 else None,
        )
        for k in range(n)
    ]  # fmt: skip
    arrays = {
        "image": rng.random((1, 32, 128, 128)).astype(np.float32),
        "label": rng.integers(0, 3, (32, 128, 128)),
        "offset": rng.random((3, 32, 128, 128)).astype(np.float32),
    }
    samples = [SampleView(f"case {k}, patch {k}", arrays) for k in range(4)]
    parts = tuple(SplitPart(case.name) for case in cases)
    return Overview(
        name="many", made=True,
        findings=[Finding("small-objects", f"found in {c.name}", case=c.name) for c in cases],
        cases=cases, fingerprint=None, normalisation={"kind": "zscore"}, classes=None,
        label_kind="instances", plan=make_plan((64, 256, 256)), choices=(),
        splits=Splits("cases", parts, parts[:1]), counts={"train": 64 * n, "val": n},
        stored=(64, 160, 160), train=samples, val=samples[:2],
    )  # fmt: skip


def test_five_hundred_cases_stay_below_15_megabytes() -> None:
    html = render_report(overview(500)).html()
    assert html.count("<tr data-side") == 500
    assert len(html.encode()) < 15_000_000


def test_whether_a_set_is_fit_is_said_in_a_word() -> None:
    told = overview(2)
    assert render_report(told).verdict == ("good", "Fit for training")
    doubtful = replace(told, findings=[Finding("few-positions", "7 places")])
    verdict = render_report(doubtful).verdict
    assert verdict == ("warn", "Usable; look at 1 warning first")
    wrong = replace(told, findings=[Finding("shape-mismatch", "other shapes")])
    assert render_report(wrong).verdict == ("bad", "Not fit for training: 1 error")


def test_findings_come_with_their_fix_and_the_worst_first() -> None:
    found = [
        Finding("small-objects", "three of them"),
        Finding("few-positions", "7 places", todo="set `plan.patch_size` smaller"),
    ]
    html = render_report(replace(overview(1), findings=found)).html()
    assert html.index("few-positions") < html.index("small-objects")
    assert "To do: Set <code>plan.patch_size</code> smaller." in html


def test_a_curve_of_shares_is_drawn_where_values_lie() -> None:
    curve = Curve(np.array([0.0, 10.0, 20.0]), np.array([1.0, 0.01]))
    svg = draw_curves("t", [curve], across="grey", up="share", clip=(5.0, 15.0))
    points = [
        tuple(map(float, p.split(",")))
        for p in re.findall(r'class="bar" points="([^"]+)"', svg)[0].split()
    ]
    (x0, high), (x1, _), (x2, low) = points[1], points[2], points[4]
    assert x1 - x0 == pytest.approx((360 - 54 - 10) / 2, abs=1)
    assert x2 - x1 == pytest.approx(x1 - x0, abs=1)
    assert high < low
    left, right = re.findall(r'class="clipped" x="([\d.]+)" y="22" width="([\d.]+)"', svg)
    assert float(left[1]) == pytest.approx(float(right[1]), abs=0.2)


def test_bars_are_as_long_as_their_values() -> None:
    svg = draw_bars("t", [("a", 10.0, "10"), ("b & c", 5.0, "5")])
    long, short = (float(w) for w in re.findall(r'rx="2" width="([\d.]+)"', svg))
    assert long == pytest.approx(2 * short)
    assert "b &amp; c" in svg


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1234567, "1,234,567"), (0.123456, "0.123"), (3.0, "3")]
)
def test_numbers_are_written_for_people(value: float, text: str) -> None:
    assert number_text(value) == text


def test_what_is_drawn_over_a_picture_can_be_hidden() -> None:
    label = np.zeros((1, 20, 20), np.uint8)
    label[0, 5:15, 5:15] = 1
    image = np.zeros((1, 20, 20), np.float32)
    view = View((1, 20, 20), (1, 1, 1), [(0, 1)], side=100)
    plain: Picture = draw_sample(view, image, at=(0, 10, 10))
    drawn = draw_sample(view, image, at=(0, 10, 10), label=label)
    assert plain.over is None
    assert drawn.over is not None
    assert drawn.base.tobytes() == plain.base.tobytes()


def test_what_is_not_annotated_is_shaded() -> None:
    image = np.full((1, 20, 20), 0.5, np.float32)
    valid = np.zeros((1, 20, 20), bool)
    valid[0, :, :10] = True
    view = View((1, 20, 20), (1, 1, 1), [(0, 1)], side=100)
    drawn = np.asarray(draw_sample(view, image, at=(0, 10, 10), valid=valid).flat()).astype(int)
    assert drawn[50, 20].tolist() == [127, 127, 127]
    assert drawn[50, 80, 2] > drawn[50, 80, 0] + 20


def pages(real_data: Callable[[str], Path], tmp_path: Path, name: str) -> str:
    config = {
        "data": {"root": str(real_data(name))},
        "output": {"dir": str(tmp_path / "out")},
        "epoch": {"steps": 10},
    }
    path = tmp_path / "real.yaml"
    path.write_text(yaml.safe_dump(config))
    return page_of(pipeline.prepare(load_config(path)).path)


@pytest.mark.parametrize("name", ["02_gonuclear_nuclei3d_h5", "14_2d_bbbc007_pairs"])
def test_real_sets_have_a_report(
    name: str, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    html = pages(real_data, tmp_path, name)
    assert ">Training samples</h2>" in html
    assert len(html) < 5_000_000


def test_huge_volumes_are_pictured_in_part() -> None:
    from volprep.geometry import Box
    from volprep.pipeline.pictures import affordable

    class Lazy:
        shape, dtype, spacing = (1, 4000, 20000, 20000), np.dtype(np.uint8), None

        def read(self, box: Box | None = None) -> npt.NDArray[Any]:
            raise AssertionError

    most, cost = affordable(Lazy())
    assert most is not None
    assert cost < 2**26
    assert all(32 <= m <= n for m, n in zip(most, Lazy.shape[1:], strict=True))


@pytest.mark.parametrize(
    ("spacing", "step", "extent"),
    [
        ((0.04, 0.004, 0.004), "40 × 4 × 4 nm", "1.28 × 0.512 × 0.512 µm (z, y, x)"),
        ((0.3, 0.1, 0.1), "0.3 × 0.1 × 0.1 µm", "9.6 × 12.8 × 12.8 µm (z, y, x)"),
        ((3000.0, 800.0, 800.0), "3 × 0.8 × 0.8 mm", "96 × 102 × 102 mm (z, y, x)"),
    ],
)
def test_lengths_are_told_in_a_unit_that_people_use(
    spacing: tuple[float, float, float], step: str, extent: str
) -> None:
    told = overview(3)
    plan = replace(told.plan, spacing=spacing, patch_size=(32, 128, 128))
    words = words_of(render_report(replace(told, plan=plan)).html())
    assert f"voxels of {step}" in words
    assert extent in words
    assert "e+0" not in words
