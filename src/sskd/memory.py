"""Small tensors on their way to the device, and how much memory a run has taken."""

import re
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

Drawn = Mapping[str, Mapping[str, Tensor]]
MAPS = Path("/proc/self/maps")  # Linux: the files that this process has loaded


def sent(values: Tensor, device: torch.device) -> Tensor:
    """The values on the device. From page-locked memory, so that the host does not wait for a GPU to take them."""
    if device.type != "cuda" or values.device.type == "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def all_sent(drawn: Drawn, device: torch.device) -> Drawn:
    """What terms have drawn, on the device; terms that draw nothing are left out."""
    return {name: {key: sent(value, device) for key, value in one.items()} for name, one in drawn.items() if one}


def peak_memory(device: str) -> int:
    """The most memory that this process has held so far, in MiB: the GPU's where it computes there, else the host's."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_reserved(device) // 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


def allocator() -> str | None:
    """The library that was loaded in place of the C library's malloc, by its file's name; None: none known was.

    What a process holds depends on it: glibc's malloc keeps up to two thirds more than tensors take.
    """
    loaded = MAPS.read_text() if MAPS.exists() else ""
    found = re.search(r"/(lib(?:tcmalloc|jemalloc|mimalloc)[^/\s]*)$", loaded, re.MULTILINE)
    return found[1] if found else None
