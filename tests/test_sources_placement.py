"""Where voxels lie: read from headers, compared, and brought to one grid without a loss."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources_checks import boxes

from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.sources import (
    ArrayVolume,
    Difference,
    Placement,
    Volume,
    aligned,
    difference,
    open_labels,
    open_volume,
)

RNG = np.random.default_rng(0)
SPACING = (2.0, 0.5, 0.25)


def a_volume(shape: tuple[int, ...], placement: Placement | None) -> Volume:
    volume = ArrayVolume(RNG.integers(0, 255, shape).astype(np.uint8), spacing=SPACING)
    volume.placement = placement
    return volume


@st.composite
def oblique(draw: st.DrawFn) -> Placement:
    """Any right or left handed grid, anywhere."""
    turn, _ = np.linalg.qr(np.random.default_rng(draw(st.integers(0, 10**6))).normal(size=(3, 3)))
    steps = (turn * SPACING).T.tolist()
    origin = [draw(st.floats(-1e4, 1e4)) for _ in range(3)]
    return Placement(tuple(map(tuple, steps)), tuple(origin), "µm", "test")


@given(data=st.data(), grid=oblique())
def test_what_was_turned_cut_and_shifted_comes_back_voxel_for_voxel(
    data: st.DataObject, grid: Placement
) -> None:
    """The other volume is made by moving voxels and their places together; the image is whole."""
    order = data.draw(st.permutations(range(3)))
    back = [data.draw(st.booleans()) for _ in range(3)]
    margin = [data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3))) for _ in range(3)]
    shape = [data.draw(st.integers(2, 6)) for _ in range(3)]
    wide = [a + n + b for (a, b), n in zip(margin, shape, strict=True)]
    matrix, origin = grid.matrix, np.array(grid.origin)
    voxels = RNG.integers(0, 10**6, wide).astype(np.uint32)
    inner = voxels[tuple(slice(a, a + n) for (a, _), n in zip(margin, shape, strict=True))]
    start = origin + matrix @ [a for a, _ in margin]
    image = ArrayVolume(inner, spacing=SPACING)
    image.placement = Placement(grid.steps, tuple(start), "µm", "test")
    # Now the voxels of the larger volume are laid down in another order, and so are their steps.
    moved = voxels.transpose(order)
    steps = [np.array(grid.steps[a]) for a in order]
    place = origin.copy()
    for axis in range(3):
        if back[axis]:
            moved = np.flip(moved, axis)
            place = place + steps[axis] * (moved.shape[axis] - 1)
            steps[axis] = -steps[axis]
    other = ArrayVolume(moved, spacing=tuple(SPACING[a] for a in order))
    other.placement = Placement(tuple(map(tuple, steps)), tuple(place), "µm", "test")
    fixed = aligned(other, image)
    assert fixed.shape == image.shape
    assert fixed.spacing == image.spacing
    assert np.array_equal(fixed.read()[0], inner)
    box = data.draw(boxes(image.shape))
    assert np.array_equal(fixed.read(box)[0], inner[box.slices])
    for slab, block in fixed.slabs(1):
        assert np.array_equal(block[0], inner[slab.slices])


@pytest.mark.parametrize("axis", range(3))
def test_each_kind_of_difference_is_said(axis: int) -> None:
    name = "zyx"[axis]
    shape = (6, 8, 10)
    image = a_volume(shape, Placement.upright(SPACING, (0, 0, 0), said_by="t"))
    flipped = list(map(list, np.diag(SPACING)))
    flipped[axis][axis] *= -1
    end = [0.0] * 3
    end[axis] = SPACING[axis] * (shape[axis] - 1)
    mirror = Placement(tuple(map(tuple, flipped)), tuple(end), "µm", "t")
    assert said(image, mirror) == f"mirrored in {name}"
    only = Placement(tuple(map(tuple, flipped)), (0.0, 0.0, 0.0), "µm", "t")
    far = shape[axis] - 1
    told = said(image, only)
    assert told is not None
    assert told.startswith(f"mirrored in {name}, shifted by {far} voxels down in {name}")
    for voxels in (-20.0, 3.0, 0.5, -0.2):
        place = [0.0] * 3
        place[axis] = voxels * SPACING[axis]
        moved = Placement.upright(SPACING, tuple(place), said_by="t")
        way = "up" if voxels > 0 else "down"
        told = said(image, moved)
        assert told is not None
        plural = "s" if abs(voxels) > 1 else ""
        assert told.startswith(f"shifted by {abs(voxels):g} voxel{plural} {way} in {name}")
        with pytest.raises(SourceError, match=r"lies otherwise.*data\.geometry: stored"):
            aligned(a_volume(shape, moved), image)


def said(image: Volume, placement: Placement, shape: Any = (6, 8, 10)) -> str | None:
    found = difference(image, a_volume(shape, placement))
    return None if found is None else found.what


def test_swapped_axes_and_a_rotation_are_said() -> None:
    image = a_volume((6, 6, 6), Placement.upright((1, 1, 1), (0, 0, 0), said_by="t"))
    swapped = Placement(((0, 0, 1.0), (0, 1.0, 0), (1.0, 0, 0)), (0, 0, 0), "µm", "t")
    told = said(image, swapped, (6, 6, 6))
    assert told == "its axes are in another order (xyz for zyx)"
    for angle in (3, 10, 45):
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        turned = Placement(((1.0, 0, 0), (0, c, s), (0, -s, c)), (0, 0, 0), "µm", "t")
        found = difference(image, a_volume((6, 6, 6), turned))
        assert found is not None
        assert found == Difference(f"rotated by {angle:.3g}°", None)


@given(grid=oblique(), seed=st.integers(0, 10**6))
def test_rounding_is_no_difference(grid: Placement, seed: int) -> None:
    noise = np.random.default_rng(seed).uniform(-1, 1, (4, 3))
    steps = tuple(
        tuple(np.float32(v * (1 + 1e-6 * n)) for v, n in zip(step, row, strict=True))
        for step, row in zip(grid.steps, noise, strict=False)
    )
    origin = tuple(
        float(np.float32(o)) + 1e-3 * n for o, n in zip(grid.origin, noise[3], strict=True)
    )
    shape = (40, 300, 500)
    image, other = (ArrayVolume(np.broadcast_to(np.uint8(0), shape)) for _ in range(2))
    image.placement, other.placement = grid, Placement(steps, origin, "µm", "t")
    assert difference(image, other) is None


def test_what_a_header_does_not_say_is_no_difference() -> None:
    grid = Placement.upright(SPACING, (0, 0, 0), said_by="t")
    far = Placement.upright(SPACING, (99, 0, 0), said_by="t")
    image, shape = a_volume((4, 4, 4), grid), (4, 4, 4)
    assert difference(image, a_volume(shape, None)) is None
    assert difference(a_volume(shape, None), image) is None
    pixels = Placement.upright(SPACING, (99, 0, 0), unit="pixel", said_by="t")
    assert difference(image, a_volume(shape, pixels)) is None
    flat = Placement(((0, 0, 0), (0, 1, 0), (0, 0, 1)), (99, 0, 0), "µm", "t")
    assert difference(image, a_volume(shape, flat)) is None
    assert aligned(image, a_volume(shape, None)) is image
    assert difference(image, a_volume(shape, far)) is not None


def test_a_mirrored_axis_of_one_voxel_is_the_same() -> None:
    image = a_volume((1, 4, 4), Placement.upright((1, 1, 1), (0, 0, 0), said_by="t"))
    flat = Placement(((-1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)), (0, 0, 0), "µm", "t")
    assert said(image, flat, (1, 4, 4)) is None


def _save(path: Path, array: Any, affine: Any, **codes: Any) -> Path:
    image = nibabel.Nifti1Image(array, affine)
    for name, code in codes.items():
        getattr(image, f"set_{name}")(affine, code)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("code", ["sform", "qform"])
@given(seed=st.integers(0, 10**6))
def test_nifti_places_are_nibabels(
    tmp_path_factory: pytest.TempPathFactory, kind: Any, code: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * rng.uniform(0.1, 5, 3)
    affine[:3, 3] = rng.uniform(-100, 100, 3)
    image = kind(np.zeros((3, 4, 5), np.uint8), None)
    getattr(image, f"set_{code}")(affine, 1)
    image.header.set_xyzt_units("micron")
    path = tmp_path_factory.mktemp("nifti") / "a.nii"
    nibabel.save(image, path)
    wanted = nibabel.load(path).affine
    placement = open_volume(path).placement
    assert placement is not None
    assert placement.said_by == code
    for index in itertools.product(range(2), repeat=3):
        place = placement.matrix @ index + placement.origin
        x, y, z = (wanted @ [*index[::-1], 1])[:3]
        np.testing.assert_allclose(place, (z, y, x), rtol=1e-5, atol=2e-3)


def test_a_qform_that_disagrees_with_the_sform_is_told(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4))
    image.set_sform(np.eye(4), 1)
    image.set_qform(np.diag([-1, 1, 1, 1]), 1)
    nibabel.save(image, tmp_path / "a.nii")
    volume = open_volume(tmp_path / "a.nii")
    assert volume.placement is not None
    assert volume.placement.said_by == "sform"
    (note,) = [n for n in volume.notes if n.name == "geometry-ambiguous"]
    assert "mirrored in x" in note


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_singular_affine_is_told_and_not_compared(tmp_path: Path, bad: float) -> None:
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4))
    for axis in "xyz":
        image.header[f"srow_{axis}"] = bad
    image.header["sform_code"] = 1
    nibabel.save(image, tmp_path / "a.nii")
    image.header["srow_x"] = bad
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[280:328] = np.full(12, bad, "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    volume = open_volume(tmp_path / "a.nii")
    assert volume.placement is None
    assert "geometry-unreadable" in [note.name for note in volume.notes]


def test_labels_keep_their_place(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.nii.gz", np.zeros((3, 4, 5), np.uint8), np.eye(4), sform=1)
    assert open_labels(path).placement == open_volume(path).placement
    assert open_labels(path).read(Box((0, 0, 0), (1, 1, 1))).shape == (1, 1, 1, 1)
