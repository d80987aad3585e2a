"""A scene in three dimensions: a volume with labels, skeletons and boxes, to look at.

`serve` hands it to Neuroglancer over a server on this machine, `open_napari` to napari. Voxels are
read when they are looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.errors import MissingDependencyError
from volprep.geometry import Box, Shape3, Spacing3, VolumeLike
from volprep.skeletons import Skeletons

__all__ = ["Scene", "Served", "open_napari", "serve"]

_LOOPBACK = "127.0.0.1"
_PERCENTILES = (1, 99)  # of what is looked at first: the range of grey
_LOOK = 64  # voxels along each axis that these are taken of
_MOST_SEGMENTS = 500  # that are shown as skeletons from the start
#: Voxels of a volume that is shown at lower resolutions, too, which reads all of it.
_MOST_SCALED = 2**28
#: Voxels of labels that surfaces are made of, for which all of them are held in memory.
_MOST_MESHED = 2**26
_MICROMETRE = 1e-6


@dataclass(frozen=True)
class Scene:
    """What is looked at.

    Attributes
    ----------
    name : str
        Of the case.
    image : VolumeLike
        (C, Z, Y, X).
    label, mask : VolumeLike or None
        Of its (Z, Y, X).
    skeletons : Skeletons or None
        Points in voxels of the image.
    boxes : dict of str to list of Box
        Layers of boxes, such as ``patch``.
    patch : Box or None
        What is looked at first; None is the middle.
    spacing : tuple of float or None
        (Z, Y, X) in µm.
    """

    name: str
    image: VolumeLike
    label: VolumeLike | None = None
    mask: VolumeLike | None = None
    skeletons: Skeletons | None = None
    boxes: Mapping[str, Sequence[Box]] = field(default_factory=dict)
    patch: Box | None = None
    spacing: Spacing3 | None = None

    @property
    def shape(self) -> Shape3:
        """(Z, Y, X)."""
        _, z, y, x = self.image.shape
        return z, y, x

    @property
    def centre(self) -> tuple[float, float, float]:
        """Of the patch, or of the volume."""
        box = self.patch or Box.whole(self.shape)
        z, y, x = ((a + b) / 2 for a, b in zip(box.start, box.stop, strict=True))
        return z, y, x

    def glance(self) -> Box:
        """A box of some voxels around the centre, inside the volume."""
        size = [min(_LOOK, n) for n in self.shape]
        start = [
            int(min(max(0, c - s // 2), n - s))
            for c, s, n in zip(self.centre, size, self.shape, strict=True)
        ]
        z, y, x = start
        return Box.at((z, y, x), (size[0], size[1], size[2]))


@dataclass(frozen=True)
class Served:
    """A scene that is served: for as long as this is kept.

    Attributes
    ----------
    url : str
        To open in a browser of this machine.
    layers : tuple of str
    position : tuple of float
        (Z, Y, X) that is looked at first.
    """

    url: str
    layers: tuple[str, ...]
    position: tuple[float, float, float]
    viewer: Any = field(repr=False)

    def close(self) -> None:
        """Serve nothing any more, this scene and others."""
        from neuroglancer import server

        running = server.global_server
        server.stop()
        if running is not None:
            running.executor.shutdown()


def serve(scene: Scene, *, port: int = 0) -> Served:
    """Serve a scene to Neuroglancer on loopback.

    Parameters
    ----------
    scene : Scene
    port : int
        0 takes a free one.

    Returns
    -------
    Served

    Raises
    ------
    MissingDependencyError
        Without the neuroglancer package.
    OSError
        If the port is taken.
    """
    try:
        import neuroglancer as ng
    except ImportError as error:
        raise MissingDependencyError("neuroglancer", "view") from error
    ng.set_server_bind_address(_LOOPBACK, bind_port=port)
    viewer = ng.Viewer()
    space = _dimensions(ng, scene.spacing)
    with viewer.txn() as state:
        state.dimensions = space
        state.position = list(scene.centre)
        size = max(scene.glance().shape)
        state.cross_section_scale = max(size, *(scene.patch or scene.glance()).shape) / 400
        state.projection_scale = 2 * max(scene.shape)
        state.layers[scene.name] = _image_layer(ng, scene)
        if scene.label is not None:
            state.layers["label"] = _label_layer(ng, scene, space)
        if scene.mask is not None:
            mask = _segmentation(ng, scene.mask, scene.spacing, surfaces=False)
            state.layers["valid"] = ng.SegmentationLayer(source=mask, not_selected_alpha=0.1)
            state.layers["valid"].visible = False
        if scene.skeletons is not None and scene.label is None:
            state.layers["skeletons"] = _skeleton_layer(ng, scene, space)
        for name, boxes in scene.boxes.items():
            state.layers[name] = _box_layer(ng, boxes, space)
        layers = tuple(layer.name for layer in state.layers)
    return Served(viewer.get_viewer_url(), layers, scene.centre, viewer)


def open_napari(scene: Scene) -> None:
    """Show a scene in napari until its window is closed.

    Raises
    ------
    MissingDependencyError
        Without napari.
    """
    try:
        napari: Any = import_module("napari")  # of no extra: with it comes a toolkit of windows
    except ImportError as error:
        raise MissingDependencyError("napari", None) from error
    scale = scene.spacing or (1.0, 1.0, 1.0)
    viewer = napari.Viewer(title=scene.name)
    low, high = _range(scene)
    viewer.add_image(
        _Lazy(scene.image), name=scene.name, scale=scale, contrast_limits=(low, high),
        channel_axis=0 if scene.image.shape[0] > 1 else None,
    )  # fmt: skip
    for name, volume in (("label", scene.label), ("valid", scene.mask)):
        if volume is not None:
            viewer.add_labels(_Lazy(volume), name=name, scale=scale)
    if scene.skeletons is not None:
        viewer.add_points(scene.skeletons.points, name="skeletons", scale=scale, size=2)
    for name, boxes in scene.boxes.items():
        lines = [edge for box in boxes for edge in _edges(box)]
        viewer.add_shapes(lines, shape_type="line", name=name, scale=scale, edge_color="yellow")
    viewer.dims.set_point(range(3), [c * s for c, s in zip(scene.centre, scale, strict=True)])
    napari.run()


class _Lazy:
    """A volume with an array's manners, read where it is indexed: (Z, Y, X), or with C first."""

    def __init__(self, volume: VolumeLike) -> None:
        self._volume = volume
        self._channels = volume.shape[0] > 1
        self.shape = tuple(volume.shape) if self._channels else tuple(volume.shape[1:])
        self.ndim = len(self.shape)
        self.dtype = _shown(volume.dtype)
        self._lock = threading.Lock()

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        given = list(index) if isinstance(index, tuple) else [index]
        given += [slice(None)] * (self.ndim - len(given))
        cuts = [c if isinstance(c, slice) else slice(int(c), int(c) + 1) for c in given]
        spans = [range(*c.indices(n)) for c, n in zip(cuts, self.shape, strict=True)]
        z, y, x = (slice(s.start, s.stop) for s in spans[-3:])
        box = Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))
        block = np.asarray(self._volume.read(box))
        block = block[tuple(slice(None, None, s.step) for s in [range(1), *spans[-3:]])]
        block = (
            block[spans[0].start : spans[0].stop : spans[0].step] if self._channels else block[0]
        )
        dropped = tuple(0 if not isinstance(c, slice) else slice(None) for c in given)
        return np.ascontiguousarray(block[dropped].astype(self.dtype, copy=False))

    def transpose(self) -> npt.NDArray[Any]:
        """All of it, the axes reversed: what Neuroglancer makes surfaces of."""
        return self[(slice(None),) * self.ndim].T


def _shown(dtype: Any) -> np.dtype[Any]:
    """What the viewers draw: integers as they are but for signed ones of 64 bits, else float32."""
    kind: np.dtype[Any] = np.dtype(dtype)
    if kind.kind == "b":
        return np.dtype(np.uint8)
    if kind.kind == "u" or (kind.kind == "i" and kind.itemsize <= 4):
        return kind
    return np.dtype(np.float32)


def _dimensions(ng: Any, spacing: Spacing3 | None, *, channels: bool = False) -> Any:
    names = ["c^", "z", "y", "x"] if channels else ["z", "y", "x"]
    lengths = [1.0, 1.0, 1.0] if spacing is None else [s * _MICROMETRE for s in spacing]
    units = ["" if spacing is None else "m"] * 3
    return ng.CoordinateSpace(
        names=names, units=["", *units] if channels else units,
        scales=[1.0, *lengths] if channels else lengths,
    )  # fmt: skip


def _volume(ng: Any, volume: VolumeLike, spacing: Spacing3 | None, kind: str) -> Any:
    data = _Lazy(volume)
    space = _dimensions(ng, spacing, channels=data.ndim == 4)
    small = np.prod(volume.shape, dtype=np.float64) <= _MOST_SCALED
    return ng.LocalVolume(
        data, dimensions=space, volume_type=kind, downsampling="3d" if small else None
    )


def _segmentation(
    ng: Any, volume: VolumeLike, spacing: Spacing3 | None, *, surfaces: bool = True
) -> Any:
    """A volume of ids; a plane, or what is too large, is asked for no surfaces."""
    source = _volume(ng, volume, spacing, "segmentation")
    size = np.prod(volume.shape, dtype=np.float64)
    unsigned = _shown(volume.dtype).kind == "u"
    if surfaces and unsigned and volume.shape[1] > 1 and size <= _MOST_MESHED:
        return source
    return ng.LayerDataSource(
        url=source, enable_default_subsources=False, subsources={"default": True, "bounds": True}
    )


def _range(scene: Scene) -> tuple[float, float]:
    """The grey values between which what is looked at first lies."""
    voxels = np.asarray(scene.image.read(scene.glance()), np.float64)
    voxels = voxels[np.isfinite(voxels)]
    low, high = np.percentile(voxels, _PERCENTILES) if voxels.size else (0.0, 1.0)
    return float(low), float(high if high > low else low + 1)


def _image_layer(ng: Any, scene: Scene) -> Any:
    source = _volume(ng, scene.image, scene.spacing, "image")
    return ng.ImageLayer(
        source=source, shader_controls={"normalized": {"range": list(_range(scene))}}
    )


def _label_layer(ng: Any, scene: Scene, space: Any) -> Any:
    """The labels, and on them the skeletons of the same ids."""
    label = scene.label
    if label is None:
        raise ValueError("the scene has no label")
    sources = [_segmentation(ng, label, scene.spacing)]
    box = scene.glance() if scene.patch is None else scene.patch.clip(scene.shape)
    seen = np.unique(np.asarray(label.read(box)))
    ids = [int(i) for i in seen if i]
    if scene.skeletons is not None:
        sources.append(_skeleton_source(ng, scene.skeletons, space))
    return ng.SegmentationLayer(source=sources, segments=ids[:_MOST_SEGMENTS], selected_alpha=0.3,
                                not_selected_alpha=0.15)  # fmt: skip


def _skeleton_layer(ng: Any, scene: Scene, space: Any) -> Any:
    found = scene.skeletons
    if found is None:
        raise ValueError("the scene has no skeletons")
    ids = [int(i) for i in found.ids[:_MOST_SEGMENTS]]
    return ng.SegmentationLayer(source=_skeleton_source(ng, found, space), segments=ids)


def _skeleton_source(ng: Any, skeletons: Skeletons, space: Any) -> Any:
    class Source(ng.skeleton.SkeletonSource):  # type: ignore[misc]
        """The points and edges of one instance at a time."""

        def get_skeleton(self, object_id: int) -> Any:
            row = int(np.searchsorted(skeletons.ids, np.uint64(object_id)))
            if row == len(skeletons.ids) or skeletons.ids[row] != object_id:
                return None
            first, last = (int(n) for n in skeletons.offsets[row : row + 2])
            own = (skeletons.edges[:, 0] >= first) & (skeletons.edges[:, 0] < last)
            edges = skeletons.edges[own] - first
            # A voxel's centre is half a voxel from its corner, at which Neuroglancer counts.
            return ng.skeleton.Skeleton(skeletons.points[first:last] + 0.5, edges)

    return Source(space)


def _box_layer(ng: Any, boxes: Sequence[Box], space: Any) -> Any:
    notes = [
        ng.AxisAlignedBoundingBoxAnnotation(
            id=str(number), point_a=list(map(float, box.start)), point_b=list(map(float, box.stop))
        )
        for number, box in enumerate(boxes)
    ]
    return ng.LocalAnnotationLayer(dimensions=space, annotations=notes)


def _edges(box: Box) -> list[npt.NDArray[np.float64]]:
    """The twelve edges of a box, each as two points."""
    ends = np.array([box.start, box.stop], np.float64) - 0.5
    corners = [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    pairs = [(a, b) for a in corners for b in corners
             if a < b and sum(p != q for p, q in zip(a, b, strict=True)) == 1]  # fmt: skip
    return [np.array([[ends[e][axis] for axis, e in enumerate(c)] for c in pair]) for pair in pairs]
