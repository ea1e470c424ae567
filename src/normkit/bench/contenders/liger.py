"""Liger-Kernel's Triton kernels: https://github.com/linkedin/Liger-Kernel"""

from __future__ import annotations

from typing import Any

from liger_kernel.transformers import functional
from torch import Tensor

from normkit.bench.cases import Case
from normkit.bench.contenders.base import Unavailable
from normkit.bench.operands import Operands


def norm(case: Case, operands: Operands) -> Any:
    """RMSNorm as Llama has it, its gradient in memory of its own, and LayerNorm."""
    if case.op == "rms_norm":
        return _rms_norm
    if case.op == "layer_norm":
        return _layer_norm
    raise Unavailable("no BatchNorm")


def _rms_norm(x: Tensor, shape: tuple[int, ...], weight: Tensor, eps: float) -> Any:
    return functional.liger_rms_norm(x, weight, eps, in_place=False)


def _layer_norm(x: Tensor, shape: tuple[int, ...], weight: Tensor, bias: Tensor, eps: float) -> Any:
    return functional.liger_layer_norm(x, weight, bias, eps)
