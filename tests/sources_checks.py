"""What every volume must do, checked against the array it was written from."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st

from volprep.geometry import Box
from volprep.sources import Volume

Array = npt.NDArray[Any]

INTEGERS = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"]
FLOATS = ["float32", "float64"]
NUMBERS = [*INTEGERS, *FLOATS]


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for one example of a hypothesis test."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@st.composite
def arrays(draw: st.DrawFn, axes: str = "ZYX", dtypes: list[str] | None = None) -> Array:
    """Random voxels over the whole range of a type, with some flat ground to compress."""
    limits = {"C": (1, 3), "S": (3, 3), "Z": (1, 12)}
    shape = tuple(draw(st.integers(*limits.get(a, (2, 12)))) for a in axes)
    dtype = np.dtype(draw(st.sampled_from(dtypes or NUMBERS)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if dtype.kind == "f":
        voxels = rng.normal(0, 1e3, shape).astype(dtype)
    else:
        info = np.iinfo(dtype)
        voxels = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    voxels[rng.random(shape) < 0.5] = 1
    return voxels


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, ...]) -> Box:
    """A box inside a shape (its last three axes)."""
    spans = [sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in shape[-3:]]
    return Box(tuple(a for a, _ in spans), tuple(b for _, b in spans))


def check_volume(volume: Volume, wanted: Array, data: st.DataObject) -> None:
    """Shape, type, boxes, slabs and copies of a volume against (C, Z, Y, X)."""
    assert volume.shape == wanted.shape
    assert volume.dtype == wanted.dtype
    assert volume.dtype.isnative
    assert volume.ndim_spatial == (2 if wanted.shape[1] == 1 else 3)
    for _ in range(3):
        box = data.draw(boxes(wanted.shape))
        check_block(volume.read(box), wanted[(slice(None), *box.slices)])
    check_block(volume.read(), wanted)
    check_slabs(volume, wanted, data)
    copy = pickle.loads(pickle.dumps(volume))
    check_block(copy.read(), wanted)
    volume.close()
    check_block(volume.read(), wanted)
    nz, ny, nx = wanted.shape[1:]
    with pytest.raises(ValueError, match="is not inside"):
        volume.read(Box((0, 0, 0), (nz, ny, nx + 1)))
    volume.close()
    copy.close()


def check_block(block: Array, wanted: Array) -> None:
    """The same voxels in the same type and native byte order."""
    assert block.dtype == wanted.dtype
    assert block.dtype.isnative
    assert block.flags.aligned
    np.testing.assert_array_equal(block, wanted)


def check_slabs(volume: Volume, wanted: Array, data: st.DataObject) -> None:
    """Slabs are disjoint, ordered by z, cover the volume, and keep to their size."""
    depth = data.draw(st.none() | st.integers(1, wanted.shape[1] + 1))
    limit = data.draw(st.integers(1, 2 * wanted.nbytes))
    seen = np.zeros(wanted.shape[1:], int)
    last = 0
    for box, block in volume.slabs(depth, max_bytes=limit):
        check_block(block, wanted[(slice(None), *box.slices)])
        seen[box.slices] += 1
        assert box.start[0] >= last
        last = box.start[0]
        if depth is not None:
            assert box.shape == (min(depth, wanted.shape[1] - box.start[0]), *wanted.shape[2:])
    assert (seen == 1).all()
