"""The places of training patches: drawn anew whenever one is wanted, and kept on the disk so.

What it takes to draw is found by walking through the volumes once (where foreground lies,
which places qualify, which regions are made rarer). A set of volumes keeps that, so that a
loader draws as `prepare` does and reads nothing before the first patch.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.cutting.draw import Acceptance, Drawing, ForegroundLater, filtering, foreground
from volprep.cutting.patches import PreparedCase, Site
from volprep.errors import PlanError, StoreError
from volprep.files import NOT_THERE, REOPEN, REPAIR, NewFile, unreadable
from volprep.geometry import Box, Shape3, grid_shape, three
from volprep.patching import (
    BlockPatching,
    EpochPatching,
    ForegroundPatching,
    Patching,
    PatchSpecs,
    StartSource,
    StratifiedPatching,
    block_shapes,
    create_patching,
)
from volprep.sampling import FilteredRegions, ForegroundIndex, Per, Places, Rejection

__all__ = ["Block", "TrainingPlaces", "regions_of", "shown_of", "site_of"]

Block = tuple[int, Box]

#: Runs of foreground that a set keeps, of all its blocks together and of each at least.
_RUNS, _FEWEST_RUNS = 2**24, 2**12
_ABOUT = "places.json"


class TrainingPlaces:
    """The places of training patches, of which any is drawn when it is wanted.

    What is cut is larger than what a network sees of it, so that a rotation has something to
    turn. Places are drawn for what is seen, which foreground is to be in and which has to hold
    what is asked for; what is cut lies about it, within the block.

    A patch at random has any voxel of the block as its middle, as far as the block allows, so
    that its corners are seen half as often as the rest. Drawn evenly over the places of a patch
    they would hardly be seen: the outer eighth of a block of 100 voxels by a patch of 40 a fifth
    as often, and networks were worse by 0.03 of Dice there (scripts/bench_training.py, 02).

    Parameters
    ----------
    blocks, patch_size, drawing, prepared, weights, progress, rejected, filtered
        As of `training_sites`; not ``sequential``.
    held : int or None
        How many blocks' foreground is held at once; None holds all. Sites in order need two,
        sites at random all.

    Raises
    ------
    PlanError
        As `training_sites`.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        patch_size: Shape3,
        drawing: Drawing,
        prepared: Sequence[PreparedCase],
        *,
        weights: Sequence[float],
        progress: Callable[[int], None] = lambda _: None,
        rejected: list[Site] | None = None,
        filtered: list[FilteredRegions] | None = None,
        held: int | None = 2,
    ) -> None:
        shown = shown_of(drawing, patch_size)
        accept = Acceptance(drawing, prepared, blocks, shown, rejected)
        base = _base(_frames(accept.blocks, shown, drawing), shown, drawing)
        adapt = filtering(drawing, prepared, accept.blocks)
        found = [] if adapt is None else adapt(base)
        if filtered is not None:
            filtered.extend(found)
        if base.n_patches == 0:
            raise PlanError(
                "patching.filter leaves no patch; loosen it or raise filtered_patch_prob"
            )
        sources = foreground(drawing, prepared, accept.blocks, progress, held=held)
        self._put_together(accept, base, sources, drawing, weights, patch_size)
        self._kept = [regions.kept for regions in found]

    def _put_together(
        self,
        accept: Acceptance,
        base: Patching,
        sources: Sequence[StartSource | None],
        drawing: Drawing,
        weights: Sequence[float],
        patch_size: Shape3,
    ) -> None:
        self._accept, self._sources = accept, sources
        self._drawing, self._weights = drawing, tuple(weights)
        frames = _frames(accept.blocks, accept.size, drawing)
        framed = [
            None if source is None else _InFrame(source, frame)
            for source, (_, frame) in zip(sources, frames, strict=True)
        ]
        placed = BlockPatching(
            ForegroundPatching(base, framed, drawing.foreground), frames, accept.size
        )
        # Larger patches cover the blocks with fewer; a filter makes them fewer, too.
        share = placed.n_patches / _tiles(frames, accept.size)
        count = round(_tiles(accept.blocks, patch_size) * share)
        self._strategy = _epoch(placed, count, accept.blocks, drawing, weights)
        self._regions = regions_of(accept.blocks)
        self.patch_size = patch_size

    def __len__(self) -> int:
        """Sites of one epoch."""
        return self._strategy.n_patches

    @property
    def cases(self) -> list[int]:
        """The case of each site of an epoch."""
        indices = self._strategy.get_patch_indices
        return [case for case in range(len(self._weights)) for _ in indices(case)]

    def draw(self, number: int, rng: np.random.Generator) -> Site:
        """The strategy's own site, or, if it is thrown back, one that is known to qualify."""
        site = site_of(self._strategy.get_patch_spec(number, rng), self._regions)
        site = _kept_inside(site, self._accept.size)
        if not self._accept(site, rng):
            site = self._accept.instead(site, rng)
        return _widened(site, self._accept.size, self.patch_size)

    def save(self, path: Path, key: str) -> None:
        """Write all that drawing takes, block by block, so that `load` draws the same.

        Parameters
        ----------
        path : Path
            Of a zip of NumPy arrays, whose bytes depend on the places alone.
        key : str
            By which it is known again.

        Notes
        -----
        Of a block with more than its share of 2^24 runs of foreground a random part is kept, as
        `ForegroundIndex.thinned` does.
        """
        blocks, places = self._accept.blocks, self._accept.places
        share = max(_FEWEST_RUNS, _RUNS // max(1, len(blocks)))
        about: dict[str, Any] = {
            "patch_size": self.patch_size,
            "weights": self._weights,
            "drawing": {n: getattr(self._drawing, n) for n in _DRAWN},
            "rejection": asdict(self._drawing.rejection),
            "filtered": bool(self._kept),
            "blocks": [],
        }
        with NewFile(path) as new, zipfile.ZipFile(new.file, "w") as whole:
            whole.comment = key.encode()
            for number, block in enumerate(blocks):
                own = {"case": block[0], "start": block[1].start, "stop": block[1].stop}
                source = self._sources[number]
                if isinstance(source, ForegroundLater):
                    index = source.index()
                    own["per"] = index.per
                    _write(whole, f"{number}/foreground", index.thinned(share).packed())
                if block in places:
                    own["places"] = places[block].facts()
                    _write(whole, f"{number}/places", places[block].packed())
                if self._kept:
                    _write(whole, f"{number}/kept", self._kept[number])
                about["blocks"].append(own)
            whole.writestr(zipfile.ZipInfo(_ABOUT), json.dumps(about))

    @classmethod
    def load(cls, path: Path, prepared: Sequence[PreparedCase], *, key: str) -> TrainingPlaces:
        """The places that `save` wrote.

        Parameters
        ----------
        path : Path
        prepared : sequence of PreparedCase
            As they were: their masks and labels are read where drawn patches may be thrown back.
        key : str
            As it was given to `save`.

        Raises
        ------
        StoreError
            If the file is missing, damaged, or another one.
        """
        kept = _Kept(path, key)
        about = kept.about
        patch_size = three(about["patch_size"])
        how = about["drawing"]
        how["shown"] = None if how["shown"] is None else three(how["shown"])
        drawing = Drawing(rejection=Rejection(**about["rejection"]), **how)
        blocks = [
            (each["case"], Box(three(each["start"]), three(each["stop"])))
            for each in about["blocks"]
        ]
        shown = shown_of(drawing, patch_size)
        places = {
            blocks[n]: Places.unpacked(
                blocks[n][1], shown, drawing.rejection, each["places"],
                kept.array(f"{n}/places"),
            )
            for n, each in enumerate(about["blocks"]) if "places" in each
        }  # fmt: skip
        accept = Acceptance(drawing, prepared, blocks, shown, places=places)
        base = _base(_frames(blocks, shown, drawing), shown, drawing)
        if isinstance(base, StratifiedPatching) and about["filtered"]:
            regions = [kept.array(f"{n}/kept") for n in range(len(blocks))]
            _make_rarer(base, regions, drawing.filtered_patch_prob)
        sources = [
            _KeptForeground(kept, n, blocks[n][1], each["per"]) if "per" in each else None
            for n, each in enumerate(about["blocks"])
        ]
        found = cls.__new__(cls)
        found._put_together(accept, base, sources, drawing, about["weights"], patch_size)
        found._kept = []
        return found


#: What of a `Drawing` matters once everything is found.
_DRAWN = (
    "name", "uniform", "shown", "patches_per_case", "cover", "foreground", "filtered_patch_prob",
)  # fmt: skip


class _Kept:
    """The arrays of a file of places, read when they are wanted; any thread may."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self._key = path, key
        self.about: dict[str, Any] = json.loads(self._read(_ABOUT))

    def array(self, name: str) -> npt.NDArray[Any]:
        """One array."""
        found: npt.NDArray[Any] = np.lib.format.read_array(
            io.BytesIO(self._read(name)), allow_pickle=False
        )
        return found

    def _read(self, name: str) -> bytes:
        try:
            with zipfile.ZipFile(self.path) as whole:
                if whole.comment != self._key.encode():
                    raise StoreError(f"{self.path}: is of another set; {REOPEN}")
                return whole.read(name)  # whose checksum is compared
        except NOT_THERE as error:
            raise unreadable(self.path, error) from error
        except (zipfile.BadZipFile, LookupError, ValueError, EOFError) as error:
            raise StoreError(f"{self.path}: damaged ({error}); {REPAIR}") from error


class _KeptForeground:
    """The foreground of a block, read when it is first drawn from."""

    def __init__(self, kept: _Kept, number: int, box: Box, per: Per) -> None:
        self._kept, self._number, self.box, self._per = kept, number, box, per
        self._index: ForegroundIndex | None = None

    def __len__(self) -> int:
        return len(self._read())

    def patch_start(self, rng: np.random.Generator, patch_size: Sequence[int]) -> Shape3:
        return self._read().patch_start(rng, patch_size)

    def _read(self) -> ForegroundIndex:
        if self._index is None:
            packed = self._kept.array(f"{self._number}/foreground")
            self._index = ForegroundIndex.unpacked(self.box, self._per, packed)
        return self._index


def _write(whole: zipfile.ZipFile, name: str, array: npt.NDArray[Any]) -> None:
    # An entry of its own making has no time of day in it.
    with whole.open(zipfile.ZipInfo(name), "w", force_zip64=True) as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def regions_of(blocks: Sequence[Block]) -> dict[int, list[Box]]:
    """The blocks of each case."""
    regions: dict[int, list[Box]] = {}
    for case, box in blocks:
        regions.setdefault(case, []).append(box)
    return regions


def site_of(spec: PatchSpecs, regions: Mapping[int, Sequence[Box]]) -> Site:
    """The site of a patch: the region it may see is the one that it lies in most."""
    z, y, x = spec["coords"]
    box = Box.at((z, y, x), spec["patch_size"])
    case = spec["data_idx"]
    region = max(regions[case], key=lambda block: block.common(box).size)
    return Site(case, region, (z, y, x))


def _base(blocks: Sequence[Block], patch_size: Shape3, drawing: Drawing) -> Patching:
    """The strategy on the blocks; its own generator is never used."""
    parameters: dict[str, Any] = {"name": drawing.name, "patch_size": patch_size, "seed": 0}
    if drawing.name == "stratified":
        parameters["uniform"] = drawing.uniform
    return create_patching(block_shapes(blocks, patch_size), parameters)


def _make_rarer(base: StratifiedPatching, kept: Sequence[npt.NDArray[Any]], prob: float) -> None:
    """Patches of regions that a filter left out are as rare as `filter_patches` makes them."""
    for block, regions in enumerate(kept):
        left_out = [tuple(cell) for cell in np.argwhere(~regions).tolist()]
        base.set_region_probs(block, 0, dict.fromkeys(left_out, prob))


def shown_of(drawing: Drawing, patch_size: Shape3) -> Shape3:
    """What a network sees of a patch that is cut."""
    shown = drawing.shown or patch_size
    return three(min(a, b) for a, b in zip(shown, patch_size, strict=True))


def _tiles(blocks: Sequence[Block], size: Shape3) -> int:
    return sum(math.prod(grid_shape(box.shape, size)) for _, box in blocks)


def _frames(blocks: Sequence[Block], shown: Shape3, drawing: Drawing) -> list[Block]:
    """What patches are drawn from: blocks, by half a patch larger where they lie at random."""
    if drawing.name != "random":
        return list(blocks)
    half = [p // 2 for p in shown]
    return [(number, box.grow(half)) for number, box in blocks]


class _InFrame:
    """The foreground of a block, as places in a frame about it."""

    def __init__(self, source: StartSource, box: Box) -> None:
        self._source, self.box = source, box

    def __len__(self) -> int:
        return len(self._source)

    def patch_start(self, rng: np.random.Generator, patch_size: Sequence[int]) -> Shape3:
        return self._source.patch_start(rng, patch_size)


def _kept_inside(site: Site, shown: Shape3) -> Site:
    """The nearest place in the region; where that is smaller than the patch, the middle."""
    return Site(site.case, site.region, site.region.nearest(site.start, shown))


def _widened(site: Site, shown: Shape3, size: Shape3) -> Site:
    """What is cut about a shown patch, in its region where that is large enough."""
    starts = []
    for at, p, n, low, high in zip(
        site.start, shown, size, site.region.start, site.region.stop, strict=True
    ):
        start = at - (n - p) // 2
        starts.append(min(max(start, low), high - n) if high - low >= n else start)
    inside = three(a - b for a, b in zip(site.start, starts, strict=True))
    return Site(site.case, site.region, three(starts), inside)


def _epoch(
    placed: Patching,
    once: int,
    blocks: Sequence[Block],
    drawing: Drawing,
    weights: Sequence[float],
) -> Patching:
    """An epoch of `once` patches for each cover, or as many of each case as is asked for."""
    present, total = {case for case, _ in blocks}, drawing.patches_per_case
    count = once * drawing.cover if total is None else total * len(present)
    tiles = [len(placed.get_patch_indices(i)) if total is None else 1 for i in range(len(weights))]
    shares = [
        w * t if i in present else 0.0 for i, (w, t) in enumerate(zip(weights, tiles, strict=True))
    ]
    return EpochPatching(placed, len(weights), n_patches=count, weights=shares)
