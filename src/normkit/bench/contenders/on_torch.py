"""What the contenders that work on PyTorch's tensors share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from normkit.bench.cases import EPS, MOMENTUM, Case
from normkit.bench.contenders.base import Prepared
from normkit.bench.operands import Operands, Results

__all__ = ["arguments", "function_name", "prepare_norm"]

Norm = Callable[..., Tensor]


def function_name(case: Case) -> str:
    """The name of the case's function in `torch.nn.functional` and `normkit.functional`."""
    return case.op if case.is_row_norm else "batch_norm"


def arguments(case: Case, operands: Operands) -> tuple[Any, ...]:
    """What that function is called with."""
    o, shape = operands, (case.features,)
    if case.op == "rms_norm":
        return o.x, shape, o.weight, EPS
    if case.op == "layer_norm":
        return o.x, shape, o.weight, o.bias, EPS
    training = case.op == "batch_norm_training"
    return o.x, o.running_mean, o.running_var, o.weight, o.bias, training, MOMENTUM, EPS


def prepare_norm(case: Case, operands: Operands, norm: Norm) -> Prepared:
    """Have `norm(*arguments)` timed in the case's direction.

    Forward is to be called in inference mode, as in serving.
    """
    # A partial rather than a lambda: it costs a call of a microsecond nothing.
    forward = functools.partial(norm, *arguments(case, operands))
    if case.direction == "forward":
        return Prepared(forward, lambda: _results(operands, case, forward(), ()))
    wanted, upstream = operands.wanted, operands.upstream
    if case.direction == "backward":
        output = forward()
        backward = functools.partial(torch.autograd.grad, output, wanted, upstream, retain_graph=True)
        return Prepared(backward, lambda: _results(operands, case, None, backward()))

    def both() -> tuple[Tensor, tuple[Tensor, ...]]:
        y = forward()
        return y, torch.autograd.grad(y, wanted, upstream)

    return Prepared(both, lambda: _results(operands, case, *both()))


def _results(operands: Operands, case: Case, output: Tensor | None, gradients: tuple[Tensor, ...]) -> Results:
    found: dict[str, Tensor | None] = {"output": output}
    found |= zip(("grad_input", "grad_weight", "grad_bias"), gradients, strict=False)
    if case.op == "batch_norm_training":
        found |= {"running_mean": operands.running_mean, "running_var": operands.running_var}
    return {name: t.detach().double() for name, t in found.items() if t is not None}
