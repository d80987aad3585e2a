"""Labels that lie elsewhere than stored: found on real data, and never suspected where right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from volprep.cases import find_cases
from volprep.checks.placement import Exchanged, Placed, _shown, find_exchanged, find_misplaced
from volprep.geometry import Box
from volprep.sources import ArrayVolume

Array = npt.NDArray[Any]
Move = Callable[[Array], Array]

SETS: dict[str, tuple[str, dict[str, str]]] = {
    "01": ("01_stardist_nuclei3d", {}),
    "02": ("02_gonuclear_nuclei3d_h5", {}),
    "03": ("03_plantseg_ovule_membrane_h5/sample_ovule.h5", {}),
    "04": ("04_qcanet_embryo_nuclei3d", {"label_dir": "labels_instances"}),
    "05": ("05_isbi2012_em_png_stack", {}),
    "06": ("06_fib25_neurons_png", {}),
    "08": ("08_nifti_totalseg_ct", {}),
    "11": ("11_imagej_tiff_plantseg", {}),
    "12": ("12_ometiff", {}),
    "14": ("14_2d_bbbc007_pairs", {}),
    "15": ("15_2d_stardist_pair", {}),
    "16": ("16_2d_sparse_bbbc007", {}),
    "19": ("19_omezarr_nuclei", {}),
}
FOUND = ("01", "02", "03", "04", "05", "06", "11", "12", "15")


def moved(real_data: Callable[[str], Path], name: str, move: Move) -> list[Placed]:
    """The cases of a set, their labels changed as if they were stored so."""
    folder, options = SETS[name]
    root = real_data(folder.split("/")[0])
    placed = []
    for case in find_cases(root.joinpath(*folder.split("/")[1:]), **options):
        image, label = case.open_image(), case.open_label()
        assert label is not None
        ids = np.ascontiguousarray(move(label.read()[0]))
        placed.append(Placed(case.name, image, ArrayVolume(ids, "ZYX")))
    return placed


@pytest.mark.parametrize("name", SETS)
def test_no_stored_label_is_suspected(real_data: Callable[[str], Path], name: str) -> None:
    assert find_misplaced(moved(real_data, name, lambda ids: ids)) == []


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("axis", range(3))
def test_a_mirrored_label_is_found(real_data: Callable[[str], Path], name: str, axis: int) -> None:
    cases = moved(real_data, name, lambda ids: np.flip(ids, axis))
    if cases[0].image.shape[1 + axis] == 1:
        return
    found = find_misplaced(cases)
    assert [each.case for each in found] == [case.case for case in cases]
    assert {each.how for each in found} == {f"mirrored along {'zyx'[axis]}"}


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("axes", ["yx", "zx", "zy"])
def test_a_transposed_label_is_found(
    real_data: Callable[[str], Path], name: str, axes: str
) -> None:
    first, second = ("zyx".index(axis) for axis in axes)
    shapes = [case.image.shape[1:] for case in moved(real_data, name, lambda ids: ids)]
    if any(shape[first] != shape[second] or shape[first] == 1 for shape in shapes):
        return
    found = find_misplaced(moved(real_data, name, lambda ids: ids.swapaxes(first, second)))
    assert {each.how for each in found} == {f"with {axes[0]} and {axes[1]} exchanged"}


@pytest.mark.parametrize("name", ["05", "06", "11"])
@pytest.mark.parametrize(("axis", "step"), [(0, 1), (0, -1), (1, 3), (1, -3), (2, 3), (2, -3)])
def test_a_common_shift_is_found(
    real_data: Callable[[str], Path], name: str, axis: int, step: int
) -> None:
    (found,) = find_misplaced(moved(real_data, name, lambda ids: np.roll(ids, step, axis)))
    assert found.case is None
    assert found.how.startswith("shifted by ")
    assert found.how.endswith(f"along {'zyx'[axis]}")


#: Sets of which quarters are taken for cases, and those of which the cases themselves are.
QUARTERED = ("01", "02", "03", "04", "05", "12", "15")
WHOLE = ("11", "16")


def parts(real_data: Callable[[str], Path], name: str, order: list[int] | None) -> list[Placed]:
    """Cases of one shape of a set, each with the label of the one that stands in its place."""
    found = []
    for case in moved(real_data, name, lambda ids: ids):
        image, label = case.image.read(Box.whole(case.image.shape)), case.label.read()[0]
        half = [n // 2 for n in label.shape[1:]]
        for y in (0, half[0]) if name in QUARTERED else (0,):
            for x in (0, half[1]) if name in QUARTERED else (0,):
                size = half if name in QUARTERED else list(label.shape[1:])
                cut = (slice(None), slice(y, y + size[0]), slice(x, x + size[1]))
                found.append((image[(slice(None), *cut)], label[cut]))
    order = order or list(range(len(found)))
    return [
        Placed(str(n), ArrayVolume(found[n][0]), ArrayVolume(found[m][1], "ZYX"))
        for n, m in enumerate(order)
    ]


@pytest.mark.parametrize("name", [*QUARTERED, *WHOLE, "06", "08"])
def test_no_stored_label_is_said_to_be_anothers(
    real_data: Callable[[str], Path], name: str
) -> None:
    assert find_exchanged(parts(real_data, name, None)) == []


@pytest.mark.parametrize("name", QUARTERED)
@pytest.mark.parametrize("order", [[1, 0, 2, 3], [0, 3, 2, 1], [1, 2, 3, 0], [0, 2, 3, 1]])
def test_labels_of_other_cases_are_found(
    real_data: Callable[[str], Path], name: str, order: list[int]
) -> None:
    found = find_exchanged(parts(real_data, name, order))
    wrong = {str(n): str(order.index(n)) for n in range(4) if order[n] != n}
    assert {each.case: each.label_of for each in found} == wrong


def test_two_exchanged_volumes_are_found(real_data: Callable[[str], Path]) -> None:
    found = find_exchanged(parts(real_data, "11", [1, 0]))
    assert [each[:2] for each in found] in ([("0", "1"), ("1", "0")], [("1", "0"), ("0", "1")])
    assert all(isinstance(each, Exchanged) and each.fit > 1.5 * each.stored for each in found)


@given(st.tuples(*[st.integers(1, 7)] * 3), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_what_labels_show_is_what_filters_say(
    shape: tuple[int, int, int], ids: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, ids, shape).astype(np.uint16)
    borders = np.zeros(shape, np.float64)
    for axis in (1, 2):
        apart = np.diff(labels.astype(int), axis=axis) != 0
        for side in ((0, 1), (1, 0)):
            borders = np.maximum(
                borders, np.pad(apart, [side if a == axis else (0, 0) for a in range(3)])
            )
    smooth = ndimage.uniform_filter(borders, (1, 3, 3))
    shown, foreground = _shown(labels)
    if borders.any():
        assert shown is not None
        assert np.allclose(shown / 9, smooth)
    else:
        assert shown is None
    if 0 < np.mean(labels > 0) < 1:
        assert foreground is not None
        assert np.array_equal(foreground, labels > 0)
    else:
        assert foreground is None
