"""Sites are a function of seed and case, and choosing them grows with their number alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from volprep.cutting import (
    Drawing,
    PreparedCase,
    annotated_sites,
    grid_sites,
    training_sites,
)
from volprep.errors import PlanError
from volprep.geometry import Box


class Array:
    """An array as a volume; it counts what is read of it."""

    def __init__(self, array: Any) -> None:
        self.array, self.spacing, self.reads = array[None], None, 0
        self.shape, self.dtype = self.array.shape, array.dtype

    def read(self, box: Box | None = None) -> Any:
        self.reads += 1
        return self.array[(slice(None), *(box or Box.whole(self.shape)).slices)]


def case(name: str, seed: int) -> PreparedCase:
    rng = np.random.default_rng(seed)
    label = np.zeros((8, 40, 40), np.uint16)
    for number in range(1, 5):
        z, y, x = rng.integers(0, 5), *rng.integers(0, 35, 2)
        label[z : z + 3, y : y + 5, x : x + 5] = number
    return PreparedCase(name, Array(rng.random((8, 40, 40))), Array(label), None)


@pytest.mark.parametrize("name", ["random", "stratified", "sequential"])
def test_another_case_moves_no_site_of_the_others(name: Any) -> None:
    cases = [case(word, n) for n, word in enumerate(("a", "b", "c"))]
    found = {}
    for chosen in (cases, [cases[0], cases[2]], [cases[2], cases[0]]):
        blocks = [(n, Box.whole(c.image.shape)) for n, c in enumerate(chosen)]
        sites = training_sites(
            blocks, (4, 16, 16), Drawing(name=name, seed=3, foreground=0.5), chosen,
            weights=[1.0] * len(chosen),
        )  # fmt: skip
        for number, one in enumerate(chosen):
            own = [site.start for site in sites if site.case == number]
            assert own
            assert found.setdefault(one.name, own) == own
    assert found["a"] != found["b"] or name == "sequential"


def test_places_without_a_voxel_that_is_annotated_are_left_out_where_others_stay() -> None:
    mask = np.zeros((8, 40, 40), np.uint8)
    mask[7, 39, 39] = 1
    whole = Box.whole((8, 40, 40))
    masked = PreparedCase("a", case("a", 0).image, None, Array(mask))
    sites = grid_sites([(0, whole), (1, whole)], (4, 20, 20))
    kept = annotated_sites(sites, (4, 20, 20), [masked, case("b", 1)])
    assert [site.start for site in kept if site.case == 0] == [(4, 20, 20)]
    assert [s for s in kept if s.case == 1] == [s for s in sites if s.case == 1]
    bare = PreparedCase("a", case("a", 0).image, None, Array(np.zeros((8, 40, 40), np.uint8)))
    assert annotated_sites(sites[:3], (4, 20, 20), [bare]) == sites[:3]


def test_choosing_sites_looks_at_each_block_a_bounded_number_of_times() -> None:
    class Counting(list[Any]):
        looks = 0

        def __iter__(self) -> Any:
            for item in super().__iter__():
                Counting.looks += 1
                yield item

    looks = []
    for count in (50, 200):
        volume = Array(np.zeros((4, 8, 8), np.uint8))
        cases = [PreparedCase(str(n), volume, None, None) for n in range(count)]
        blocks = Counting((n, Box.whole(volume.shape)) for n in range(count))
        Counting.looks = 0
        drawing = Drawing(patches_per_case=3)
        training_sites(blocks, (4, 4, 4), drawing, cases, weights=[1.0] * count)
        looks.append(Counting.looks)
    assert looks[1] <= 4 * looks[0]


def seen_of(sites: Any, shown: Any) -> list[Box]:
    """What is seen of each site before it is moved."""
    return [
        Box.at([a + b for a, b in zip(site.start, site.shown, strict=True)], shown)
        for site in sites
    ]


def test_foreground_and_what_is_asked_for_is_in_what_is_seen() -> None:
    label = np.zeros((8, 60, 60), np.uint16)
    label[4, 30, 30], label[0, 59, 0] = 1, 2
    one = PreparedCase("a", Array(label), Array(label), None)
    stored, shown = (4, 40, 40), (4, 10, 12)
    drawing = Drawing(shown=shown, foreground=1.0, patches_per_case=50)
    box = Box.whole(label.shape)
    sites = training_sites([(0, box)], stored, drawing, [one], weights=[1.0])
    assert all(box.contains(Box.at(site.start, stored)) for site in sites)
    seen = seen_of(sites, shown)
    assert all(Box.whole(stored).contains(Box.at(site.shown, shown)) for site in sites)
    assert all(label[each.slices].any() for each in seen)
    assert len({label[each.slices].max() for each in seen}) == 2


@pytest.mark.parametrize("stored", [(4, 40, 40), (4, 16, 16)])
def test_the_border_of_a_block_is_seen_half_as_often_as_its_middle(stored: Any) -> None:
    shown = (4, 16, 16)
    volume = Array(np.zeros((4, 100, 100), np.uint8))
    drawing = Drawing(shown=shown, foreground=0.0, patches_per_case=4000)
    sites = training_sites(
        [(0, Box.whole((4, 100, 100)))], stored, drawing,
        [PreparedCase("a", volume, None, None)], weights=[1.0],
    )  # fmt: skip
    assert len(sites) == 4000
    seen = np.zeros(100)
    for each in seen_of(sites, shown):
        seen[each.start[1] : each.stop[1]] += 1
    assert min(seen[[0, -1]]) > 0.4 * seen[40:60].mean()
    assert max(seen[[0, -1]]) < 0.65 * seen[40:60].mean()


def test_a_part_that_trains_and_holds_no_annotation_is_named() -> None:
    mask = np.zeros((8, 40, 40), np.uint8)
    mask[:, :15] = 1
    masked = PreparedCase("leaf", case("a", 0).image, None, Array(mask))
    rest = Box((0, 20, 0), (8, 40, 40))
    with pytest.raises(PlanError, match=r"nothing is annotated .*leaf, z 0 to 8, y 20 to 40, x 0"):
        training_sites([(0, rest)], (4, 16, 16), Drawing(), [masked], weights=[1.0])
    assert training_sites(
        [(0, rest), (0, Box((0, 0, 0), (8, 18, 40)))], (4, 16, 16), Drawing(), [masked],
        weights=[1.0],
    )  # fmt: skip
