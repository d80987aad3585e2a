"""The graphics processors that torch can use."""

from __future__ import annotations

__all__ = ["torch_devices"]


def torch_devices() -> tuple[str, ...]:
    """Each device with its memory in words; none where there is no torch or no device."""
    try:
        import torch
    except ImportError:
        return ()
    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(number)
        found.append(f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB")
    if torch.backends.mps.is_available():
        found.append("Apple GPU (mps)")
    return tuple(found)
