"""The devices that torch can use here."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Device", "torch_devices"]


class Device(NamedTuple):
    """A graphics processor: name, and bytes of memory, None where it shares the machine's."""

    name: str
    memory: int | None

    def __str__(self) -> str:
        return self.name if self.memory is None else f"{self.name}, {self.memory / 2**30:.1f} GiB"


def torch_devices() -> tuple[Device, ...]:
    """Each device; none where there is no torch, or where a driver that is broken stops it."""
    try:
        import torch
    except ImportError:
        return ()
    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(number)
        found.append(Device(properties.name, int(properties.total_memory)))
    if torch.backends.mps.is_available():
        found.append(Device("Apple GPU (mps)", None))
    return tuple(found)
