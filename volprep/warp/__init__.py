"""Random coordinate warps, read straight from a large source, one interpolation an array.

`CoordinateMap` says where each output voxel lies in the source, `resample`
reads images and labels through it, `draw_warp` draws one that fits.
"""

from volprep.warp.map import Border, CoordinateMap, WarpingOOBError
from volprep.warp.resample import resample

__all__ = ["Border", "CoordinateMap", "WarpingOOBError", "resample"]
