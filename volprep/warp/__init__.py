"""Random coordinate warps, read straight from a large source, one interpolation an array.

`CoordinateMap` says where each output voxel lies in the source, `resample`
reads images and labels through it, `draw_warp` draws one that fits.
"""

from volprep.warp.map import CoordinateMap
from volprep.warp.positions import Border, WarpingOOBError
from volprep.warp.resample import resample
from volprep.warp.slice import warp_slice
from volprep.warp.transform import (
    WarpDraw,
    draw_displacement,
    draw_warp,
    get_warped_coord_transform,
    map_of_transform,
    rotate_x,
    rotate_y,
    rotate_z,
    warp_source_shape,
)

__all__ = [
    "Border",
    "CoordinateMap",
    "WarpDraw",
    "WarpingOOBError",
    "draw_displacement",
    "draw_warp",
    "get_warped_coord_transform",
    "map_of_transform",
    "resample",
    "rotate_x",
    "rotate_y",
    "rotate_z",
    "warp_slice",
    "warp_source_shape",
]
