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
