"""From labels to skeletons: one for every connected component of every instance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from volprep.compute import run_units
from volprep.errors import MissingDependencyError
from volprep.geometry import Spacing3
from volprep.kernels import runs as run_kernels
from volprep.kernels import thinning
from volprep.skeletons.cavities import find_cavities, lead_around, link
from volprep.skeletons.labels import as_array, list_runs
from volprep.skeletons.points import Skeletons, sort_edges

__all__ = [
    "Component",
    "Method",
    "Trace",
    "count_traces",
    "find_components",
    "skeletonize",
    "trace_component",
]

Method = Literal["lee", "teasar"]
IntArray = npt.NDArray[np.int32]
Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Component:
    """A connected piece of one instance, as runs ``(z, y, x, stop)``, line by line."""

    instance: int
    runs: IntArray

    @property
    def voxels(self) -> int:
        """How many voxels it has."""
        return int((self.runs[:, 3] - self.runs[:, 2]).sum(dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Trace:
    """The skeleton of one component.

    Attributes
    ----------
    instance : int
        The label.
    points : array, shape (N, 3), int64
        (Z, Y, X) voxels of the component, in the order of the volume; at least one.
    edges : array, shape (E, 2), int64
        Pairs of rows of `points` that are linked.
    radii : array, shape (N,), float32
        Distance to the nearest voxel centre outside the component.
    voxels : int
        The size of the component.
    fell_back : bool
        Whether the method gave a single point or none, and the point is the voxel
        that lies deepest in the component, and of several the one nearest to its middle.
    """

    instance: int
    points: npt.NDArray[np.int64]
    edges: npt.NDArray[np.int64]
    radii: npt.NDArray[np.float32]
    voxels: int
    fell_back: bool


def skeletonize(
    labels: Any,
    *,
    spacing: Spacing3 | None = None,
    method: Method = "lee",
    workers: int | None = 1,
) -> Skeletons:
    """Make one skeleton for every connected component of every instance.

    Parameters
    ----------
    labels : array or tensor of int, shape (Z, Y, X)
        Instance ids up to 2**64 - 1, 0 is background. Voxels of one id are connected
        by faces, edges and corners.
    spacing : tuple of float or None
        (Z, Y, X) size of a voxel, for the radii and for ``teasar``. None measures
        in voxels.
    method : {'lee', 'teasar'}
        ``lee`` peels the object down to lines. ``teasar`` needs the extra ``teasar``.
    workers : int or None
        Threads; None takes every processor.

    Returns
    -------
    Skeletons
        Points are voxels of their own instance; instances have at least one each.

    Raises
    ------
    ValueError, TypeError
        If `labels` is not (Z, Y, X), not of integers, or has negative ids.
    MissingDependencyError
        If `method` is ``teasar`` and kimimaro is not installed.

    Notes
    -----
    After SKOOTS' `calculate_skeletons`, which loses the last plane of every object,
    moves points outside their objects when it rescales, and leaves out components.

    ``teasar`` clears a tube of 1.5 radii and 10 sides of a voxel (the shortest) around each
    path, and knows no cell bodies: the points are the same in any unit; see kimimaro.

    ``lee`` peels each component on its own, its cavities filled (Lee's method keeps the
    sheets around them), as `skimage.morphology.skeletonize` does but for parts that are an
    even number of voxels thick, which there are eaten up from one end to the other; see
    `volprep.kernels.thinning.thin`. What lies in a cavity is led around it, through voxels
    of the object. Where one voxel is left, one of those deepest inside the object takes its
    place, the nearest to the middle of all its voxels. The faces of the volume count as
    borders, and so do those of cavities.
    """
    check_method(method)
    trace = partial(trace_component, spacing=spacing, method=method)
    backend: Literal["threads", "serial"] = "threads" if method == "lee" else "serial"
    return gather(
        run_units(trace, find_components(as_array(labels)), backend=backend, workers=workers)
    )


def gather(traces: Iterable[Trace]) -> Skeletons:
    """Put the traces of all components together, by instance and then in their own order."""
    ordered = sorted(traces, key=lambda trace: trace.instance)
    counts: dict[int, int] = {}
    for trace in ordered:
        counts[trace.instance] = counts.get(trace.instance, 0) + len(trace.points)
    first = np.cumsum([0, *(len(trace.points) for trace in ordered)])
    return Skeletons(
        np.fromiter(counts, np.uint64, len(counts)),
        np.cumsum([0, *counts.values()], dtype=np.int64),
        _join([trace.points for trace in ordered], np.float32, (0, 3)),
        _join([t.edges + n for t, n in zip(ordered, first[:-1], strict=True)], np.int64, (0, 2)),
        _join([trace.radii for trace in ordered], np.float32, (0,)),
    )


def count_traces(traces: Sequence[Trace]) -> dict[str, int]:
    """What is worth telling of the components: how many, the smallest, and what fell back."""
    return {
        "components": len(traces),
        "smallest": min((trace.voxels for trace in traces), default=0),
        "fell_back": sum(trace.fell_back for trace in traces),
    }


def find_components(labels: npt.NDArray[Any]) -> Iterator[Component]:
    """Walk the connected components of an array of labels (Z, Y, X), in its order."""
    ids, runs = list_runs(labels)
    return split_runs(ids, runs)


def split_runs(ids: npt.NDArray[np.uint64], runs: IntArray) -> Iterator[Component]:
    """Sort runs (line by line) into connected components."""
    number = np.empty(len(runs), np.int32)
    count = run_kernels.join_runs(runs, ids, True, number)
    order = np.argsort(number, kind="stable")
    ends = np.cumsum(np.bincount(number, minlength=count))
    for start, end in pairwise([0, *ends.tolist()]):
        rows = order[start:end]
        yield Component(int(ids[rows[0]]), runs[rows])


def trace_component(
    component: Component, *, spacing: Spacing3 | None = None, method: Method = "lee"
) -> Trace:
    """Make the skeleton of one component; parameters as for `skeletonize`."""
    runs = component.runs
    start = runs.min(axis=0)[:3].astype(np.int64) - 1  # one free voxel on every side
    size = runs.max(axis=0)[[0, 1, 3]] - start + np.array([2, 2, 1])
    shape = (int(size[0]), int(size[1]), int(size[2]))
    local = (runs - start[[0, 1, 2, 2]]).astype(np.int32)
    scale = np.asarray((1, 1, 1) if spacing is None else spacing, np.float64)
    cavities = find_cavities(local, shape)
    solid = np.concatenate((local, cavities))
    tracer = _TRACERS[method]
    voxels, edges = tracer(solid, shape, scale)
    mask = _paint(local, shape)
    if len(cavities):
        voxels, edges = lead_around(voxels, edges, mask, cavities, scale)
    fell_back = len(voxels) < 2
    if fell_back:
        voxels = _middle_voxel(mask, scale)
        edges = np.empty((0, 2), np.int64)
    radii = np.empty(len(voxels), np.float32)
    thinning.measure_clearance(mask, voxels, edges, scale, radii)
    points = voxels + start
    return Trace(component.instance, points, edges, radii, component.voxels, fell_back)


# Steps to the neighbours: by faces in the order in which Lee's method peels, by edges, by corners.
_WAYS = np.array(
    [(0, -1, 0), (0, 1, 0), (0, 0, 1), (0, 0, -1), (1, 0, 0), (-1, 0, 0)]
    + [s for n in (2, 3) for s in product((-1, 0, 1), repeat=3) if np.abs(s).sum() == n]
)
Traced = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def _trace_lee(solid: IntArray, shape: tuple[int, int, int], _: npt.NDArray[np.float64]) -> Traced:
    mask = _paint(solid, shape).ravel()
    stride_z, stride_y = shape[1] * shape[2], shape[2]
    steps = _WAYS @ (stride_z, stride_y, 1)
    flat = shape[0] == 3  # one slice is thinned in its plane
    thinning.thin(mask, solid, stride_z, stride_y, steps[: 4 if flat else 6], steps)
    left = np.flatnonzero(mask)
    return np.stack(np.unravel_index(left, shape), axis=1), link(mask, left, shape)


# Lengths in the shortest side of a voxel. kimimaro treats an object that is thicker than some
# nanometres as the body of a cell; a label of unknown kind and unit has no such rule.
_TEASAR = {
    "scale": 1.5,
    "const": 10.0,
    "max_paths": None,
    "soma_detection_threshold": np.inf,
    "soma_acceptance_threshold": np.inf,
}


def _trace_teasar(
    solid: IntArray, shape: tuple[int, int, int], scale: npt.NDArray[np.float64]
) -> Traced:
    import kimimaro

    steps = scale / scale.min()  # so that no length of kimimaro's depends on the unit
    found = kimimaro.skeletonize(
        _paint(solid, shape),
        teasar_params=_TEASAR,
        anisotropy=tuple(steps),
        dust_threshold=0,
        progress=False,
        parallel=1,
    )
    if 1 not in found:
        return np.empty((0, 3), np.int64), np.empty((0, 2), np.int64)
    voxels = np.rint(found[1].vertices / steps).astype(np.int64)
    return voxels, sort_edges(found[1].edges.astype(np.int64))


_TRACERS: dict[str, Callable[[IntArray, tuple[int, int, int], npt.NDArray[np.float64]], Traced]] = {
    "lee": _trace_lee,
    "teasar": _trace_teasar,
}


def _paint(runs: IntArray, shape: tuple[int, int, int]) -> Mask:
    mask = np.zeros(shape, np.uint8)
    run_kernels.paint_runs(runs, mask)
    return mask


def _middle_voxel(mask: Mask, scale: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Of the voxels furthest from the border the one nearest to the middle, as (1, 3)."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(mask, sampling=scale)
    deepest = np.argwhere(depth > depth.max() - scale.min() / 2)
    middle = np.argwhere(mask).mean(axis=0)
    away = (((deepest - middle) * scale) ** 2).sum(axis=1)
    return deepest[[np.argmin(away)]]


def check_method(method: str) -> None:
    if method not in get_args(Method):
        raise ValueError(f"method is {method!r}, wanted one of {', '.join(get_args(Method))}")
    if method == "teasar":
        try:
            import kimimaro  # noqa: F401
        except ImportError:
            raise MissingDependencyError("kimimaro", "teasar") from None


def _join(
    parts: Sequence[npt.NDArray[Any]], dtype: npt.DTypeLike, empty: tuple[int, ...]
) -> npt.NDArray[Any]:
    return np.concatenate(parts).astype(dtype) if parts else np.empty(empty, dtype)
