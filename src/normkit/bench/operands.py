"""The tensors of a case, and the exact result for them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

import normkit as nk
from normkit.bench.cases import EPS, MOMENTUM, Case

__all__ = ["Operands", "Results", "exact", "make_operands", "result_names"]

# In float64, by name: "output", "grad_input", "grad_weight", "grad_bias", "running_mean", "running_var".
Results: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class Operands:
    """What every contender gets. RMSNorm has no bias, row norms have no running statistics."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    upstream: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None

    @property
    def wanted(self) -> list[Tensor]:
        """What the gradients are taken of."""
        return [t for t in (self.x, self.weight, self.bias) if t is not None]

    def own_statistics(self) -> Operands:
        """The same, with running statistics that another contender does not change."""
        if self.running_mean is None or self.running_var is None:
            return self
        return replace(self, running_mean=self.running_mean.clone(), running_var=self.running_var.clone())


def make_operands(case: Case, device: str = "cpu", seed: int = 0) -> Operands:
    """Random tensors, the same for a seed; all in the case's dtype, as `model.to(dtype)` leaves them.

    PyTorch takes running statistics of no other dtype than the weights'. The upstream gradient is random
    too: that of a plain sum is zero through a norm and would test nothing.
    """
    generator = torch.Generator(device).manual_seed(seed)
    dtype = getattr(torch, case.dtype)
    memory = torch.channels_last if case.channels_last else torch.contiguous_format
    needs_grad = case.direction != "forward"

    def data() -> Tensor:
        made = torch.randn(case.shape, generator=generator, device=device)
        return made.to(dtype).contiguous(memory_format=memory)

    def parameter() -> Tensor:
        return (torch.rand(case.features, generator=generator, device=device) + 0.5).to(dtype)

    x, upstream = data(), data()
    weight, bias, mean, variance = (parameter() for _ in range(4))
    operands = Operands(
        x=x,
        weight=weight,
        bias=None if case.op == "rms_norm" else bias,
        upstream=upstream,
        running_mean=None if case.is_row_norm else mean,
        running_var=None if case.is_row_norm else variance,
    )
    for tensor in operands.wanted:
        tensor.requires_grad_(needs_grad)
    return operands


def result_names(case: Case) -> tuple[str, ...]:
    """The results a contender of this case has to show."""
    output = () if case.direction == "backward" else ("output",)
    tracked = output and case.op == "batch_norm_training"
    running = ("running_mean", "running_var") if tracked else ()
    bias = () if case.op == "rms_norm" else ("grad_bias",)
    gradients = () if case.direction == "forward" else ("grad_input", "grad_weight", *bias)
    return (*output, *gradients, *running)


def exact(case: Case) -> Results:
    """All results of the case in float64, from the NumPy reference; the last one is remembered.

    Directions and memory formats share it: they change what is asked for, not its values.
    """
    return _exact(replace(case, direction="forward+backward", channels_last=False))


@functools.lru_cache(maxsize=1)
def _exact(case: Case) -> Results:
    operands = make_operands(case)
    x, weight, upstream = (
        t.detach().double().numpy() for t in (operands.x, operands.weight, operands.upstream)
    )
    bias, mean, variance = (
        None if t is None else t.detach().double().numpy()
        for t in (operands.bias, operands.running_mean, operands.running_var)
    )
    if not case.is_row_norm:
        training = case.op == "batch_norm_training"
        result = nk.reference.batch_norm(x, mean, variance, weight, bias, training, MOMENTUM, EPS)
        gradients = nk.reference.batch_norm_backward(upstream, x, mean, variance, weight, bias, training, EPS)
        found = {
            "output": result.output,
            "running_mean": result.running_mean,
            "running_var": result.running_var,
        }
    elif case.op == "layer_norm":
        shape = (case.features,)
        found = {"output": nk.reference.layer_norm(x, shape, weight, bias, EPS)}
        gradients = nk.reference.layer_norm_backward(upstream, x, shape, weight, bias, EPS)
    else:
        shape = (case.features,)
        found = {"output": nk.reference.rms_norm(x, shape, weight, EPS)}
        gradients = nk.reference.rms_norm_backward(upstream, x, shape, weight, EPS)
    found |= {
        "grad_input": gradients.grad_input,
        "grad_weight": gradients.grad_weight,
        "grad_bias": gradients.grad_bias,
    }
    return {name: torch.as_tensor(value).double() for name, value in found.items() if value is not None}
