"""Let elektronn3 warp a small volume, and keep what it returns for `tests/test_warp_slice.py`.

    python scripts/make_warp_goldens.py

Writes `tests/data/elektronn3_warps.npz`; elektronn3 0.1.1 comes from PyPI into an
environment of its own. The volumes are formulas, so that the tests can make them again.
"""

from __future__ import annotations

import subprocess

from benchlib import ROOT, peer_python

TARGET = ROOT / "tests" / "data" / "elektronn3_warps.npz"

PROGRAM = """
import sys
import numpy as np
from elektronn3.data import coord_transforms

z, y, x = np.ogrid[:26, :50, :52]
plain = (57 * z + 13 * y * y + 17 * x + x * y * z) % 251
image = np.stack([plain, plain[::-1]]).astype(np.float32) / 251
label = (plain[2:24, 2:48, 2:50] % 60)[None].astype(np.float32)
shapes = {"target_src_shape": label.shape, "target_patch_shape": (3, 10, 12)}
patch = (5, 14, 16)
kinds = {
    "lock": {},
    "free": {"lock_z": False},
    "perspective": {"lock_z": False, "perspective": True},
    "isotropic": {"sample_aniso": False},
    "still": {"warp_amount": 0},
}
np.random.seed(3)
names, matrices, images, labels = [], [], [], []
for name, options in kinds.items():
    for _ in range(2):
        while True:
            matrix = coord_transforms.get_warped_coord_transform(
                image.shape, patch, **shapes, **options)
            try:
                made = coord_transforms.warp_slice(
                    image, patch, matrix, target_src=label, target_patch_shape=(3, 10, 12))
            except coord_transforms.WarpingOOBError:
                continue
            break
        names.append(name)
        matrices.append(matrix)
        images.append(made[0])
        labels.append(made[1].astype(np.uint8))
np.savez_compressed(sys.argv[1], names=names, matrices=matrices, images=images, labels=labels)
"""

if __name__ == "__main__":
    python = peer_python("elektronn3", "torch==2.13.0", "elektronn3")
    subprocess.run([str(python), "-c", PROGRAM, str(TARGET)], check=True)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")
