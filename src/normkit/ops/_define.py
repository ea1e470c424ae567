"""How an operator is made known to PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from normkit.kernels import gpu

Operator: TypeAlias = Callable[..., Tensor]
Operators: TypeAlias = Callable[..., tuple[Tensor, ...]]


def define(schema: str, *, fallback: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Define ``normkit::schema`` and return it.

    fallback: serves every device that has no kernel of ours.
    fake: makes results of the right shape, dtype and strides without data, for the compiler.
    """
    name, signature = schema[: schema.index("(")], schema[schema.index("(") :]
    torch.library.define(f"normkit::{name}", signature, tags=torch.Tag.pt2_compliant_tag)
    torch.library.impl(f"normkit::{name}", "default", fallback)
    torch.library.impl(f"normkit::{name}", "cuda", gpu.serve(name, fallback))
    torch.library.register_fake(f"normkit::{name}", _on_one_device(fake))
    return getattr(torch.ops.normkit, name).default


def _on_one_device(fake: Callable[..., Any]) -> Callable[..., Any]:
    """`fake`, but not for tensors of several devices.

    Among real tensors and one on the meta device, PyTorch's dispatcher picks the fake kernel.
    """

    @functools.wraps(fake)
    def checked(*arguments: Any) -> Any:
        if len({a.device for a in arguments if isinstance(a, Tensor)}) > 1:
            raise RuntimeError("normkit: all tensors must be on one device")
        return fake(*arguments)

    return checked


def differentiate_again(
    formula: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad_output: Tensor
) -> list[Tensor | None]:
    """The gradients of ``formula(*inputs)``, themselves differentiable.

    What a backward pass returns where a graph of it is wanted: the kernels' results have none.
    """
    with torch.enable_grad():
        output = formula(*inputs)
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    grads = iter(torch.autograd.grad(output, wanted, grad_output, create_graph=True, allow_unused=True))
    return [next(grads) if t is not None and t.requires_grad else None for t in inputs]


def direct(operator: Any) -> Any:
    """The operator without the Python frame that wraps it: a tenth of a small call's time.

    For eager calls only: the compiler knows the operator, not this.
    """
    return getattr(operator, "_op", operator)


def applier(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """`function.apply` without the Python frame around it.

    The frame asks whether `torch.func` is at work; `normkit.functional` has asked already.
    """
    apply: Callable[..., Any] = super(torch.autograd.Function, function).apply  # type: ignore[misc]
    return apply
