"""QuACK's CuTe kernels for Hopper and Blackwell: https://github.com/Dao-AILab/quack"""

from __future__ import annotations

from typing import Any

import quack
from quack.rmsnorm import layernorm_fwd
from torch import Tensor

from normkit.bench.cases import Case
from normkit.bench.contenders.base import Unavailable
from normkit.bench.operands import Operands


def norm(case: Case, operands: Operands) -> Any:
    """RMSNorm, and LayerNorm forward, whose parameters it takes in float32 only."""
    if case.op == "rms_norm":
        return _rms_norm
    if case.op != "layer_norm":
        raise Unavailable("no BatchNorm")
    if case.direction != "forward" or len(case.shape) != 2:
        raise Unavailable("LayerNorm of a matrix, forward only")
    weight, bias = (None if p is None else p.float() for p in (operands.weight, operands.bias))

    def layer_norm(x: Tensor, shape: tuple[int, ...], _weight: Tensor, _bias: Tensor, eps: float) -> Any:
        return layernorm_fwd(x, weight, bias, eps)

    return layer_norm


def _rms_norm(x: Tensor, shape: tuple[int, ...], weight: Tensor, eps: float) -> Any:
    return quack.rmsnorm(x, weight, eps=eps)
