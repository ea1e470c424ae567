"""What the operators in PyTorch's own operators share."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from normkit.kernels import gpu

DTYPES = {torch.float64, torch.float32, torch.bfloat16, torch.float16}
_told: set[str] = set()


def tell(device: torch.device) -> None:
    """Say once per kind of device that no kernel of ours serves it, and what to do."""
    if device.type in _told:
        return
    _told.add(device.type)
    if device.type == "cpu":
        remedy = (
            "the C++ core could not be loaded: install a C++20 compiler and reinstall with "
            "`pip install --no-build-isolation`"
        )
    else:
        remedy = gpu.why_not(device.type) or "normkit has no such kernel yet"
    warnings.warn(
        f"normkit uses PyTorch's own operators on {device.type!r} ({remedy}). Results are the same, "
        "speed is not. `normkit.backends()` says which kernels serve which device.",
        stacklevel=4,
    )


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype statistics are computed and saved in: float32 for the half types."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def centre(x: Tensor, shift: Tensor, dims: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """``x`` less its mean, and the mean as two numbers (its rounding and what that lost)."""
    d = x - shift
    m = d.mean(dims, keepdim=True)
    mean = shift + m
    tail = mean - shift
    return d - m, mean, (shift - (mean - tail)) + (m - tail)


def check_dense(*tensors: Tensor | None) -> None:
    """Refuse a tensor that is not strided."""
    if any(t is not None and t.layout is not torch.strided for t in tensors):
        raise RuntimeError("normkit: tensors must be dense")


def check_dtypes(*tensors: Tensor | None) -> None:
    """Refuse a tensor of a dtype that no kernel serves."""
    if any(t is not None and t.dtype not in DTYPES for t in tensors):
        raise RuntimeError("normkit: tensors must be float64, float32, bfloat16 or float16")
