"""Let torchvision be imported beside a torch without CUDA.

The torchvision of PyPI is built for CUDA, and its compiled operators do not load beside the pinned
torch; its import then fails at the descriptions of two of them. They are declared here, so that
everything of torchvision that is written in Python works. No trainer asked here calls them.
"""

from __future__ import annotations

import contextlib

import torch

_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

try:
    import torchvision  # noqa: F401
except RuntimeError:
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            torch.library.define(f"torchvision::{name}", _NMS)
