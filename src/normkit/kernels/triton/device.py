"""The GPU that a tensor lies on."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from normkit.kernels.triton.launch import Chip

_NOWHERE: AbstractContextManager[Any] = nullcontext()


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Launches within go to this device. Changing it takes microseconds, and is seldom necessary."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return _NOWHERE
    return torch.cuda.device(device)


@functools.lru_cache
def chip_of(device: torch.device) -> Chip:
    """What launch choices depend on; of a CPU, where Triton's interpreter runs, a usual GPU's."""
    if device.type != "cuda":
        return Chip()
    found = torch.cuda.get_device_properties(device)
    # On CUDA gcnArchName is the GPU's name.
    architecture = found.gcnArchName.split(":")[0] if torch.version.hip else f"sm_{found.major}{found.minor}"
    return Chip(found.warp_size, found.L2_cache_size, architecture)
