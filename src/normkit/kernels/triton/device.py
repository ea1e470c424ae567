"""The GPU that a tensor lies on."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from normkit.kernels.triton.launch import Chip

_NOWHERE: AbstractContextManager[Any] = nullcontext()


def index_of(device: torch.device) -> int | None:
    """Which GPU it is: a number is quicker to compare. None for the CPU, where Triton's interpreter runs."""
    return device.index if device.type == "cuda" else None


def on(gpu: int | None) -> AbstractContextManager[Any]:
    """Launches within go to this device. Changing it takes microseconds, and is seldom necessary."""
    return _NOWHERE if is_current(gpu) else torch.cuda.device(gpu)


def is_current(gpu: int | None) -> bool:
    """Whether launches go to this device as it is."""
    # Where there is a tensor on a GPU, PyTorch's own question need not first ask whether it is ready.
    return gpu is None or gpu == torch._C._cuda_getDevice()


def current_stream(gpu: int | None) -> int:
    """The stream's address there."""
    return 0 if gpu is None else torch._C._cuda_getCurrentRawStream(gpu)


@functools.lru_cache
def chip_of(device: torch.device) -> Chip:
    """What launch choices depend on; of a CPU, where Triton's interpreter runs, a usual GPU's."""
    if device.type != "cuda":
        return Chip()
    found = torch.cuda.get_device_properties(device)
    # On CUDA gcnArchName is the GPU's name.
    architecture = found.gcnArchName.split(":")[0] if torch.version.hip else f"sm_{found.major}{found.minor}"
    # A launch whose programs are sure to run together is CUDA's to give.
    processors = 0 if torch.version.hip else found.multi_processor_count
    return Chip(found.warp_size, processors, architecture)
