"""BatchNorm as PyTorch operators, split as statistics, apply and update.

`batch_norm` applies given statistics and saves nothing. `batch_norm_train_fwd` computes a batch's
statistics and applies them while the data is in cache; `batch_norm_fixed_fwd` applies given ones. Both
also return the statistics for the backward pass, (4, C) in the accumulation dtype: rstd, the mean, what
rounding the mean lost, and the biased variance. `batch_norm_bwd` is the gradient of both;
`batch_norm_update` moves the running statistics towards a batch's. `batch_norm_step` is a training step
whole, `batch_norm_train_fwd` and the update in one call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normkit.kernels import pytorch
from normkit.kernels.pytorch import accumulation_dtype
from normkit.ops._define import (
    Operator,
    Operators,
    asked_in_eager_mode,
    at_once,
    define,
    define_again,
    differentiate_again,
    direct,
    with_gradient,
)


def _output_like(x: Tensor, *_: Any) -> Tensor:
    """An uninitialised output: channels-last where the input is, else contiguous."""
    if pytorch.is_channels_last(x):
        return x.movedim(1, -1).new_empty(x.movedim(1, -1).shape).movedim(-1, 1)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _fake_fwd(input: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    kept = (4, input.shape[1])
    return _output_like(input), input.new_empty(kept, dtype=accumulation_dtype(input.dtype))


def _fake_bwd(
    grad_output: Tensor,
    input: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    training: bool,
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> tuple[Tensor, ...]:
    grad_input = _output_like(input) if input_grad else input.new_empty(0)
    parameters = ((weight, weight_grad), (bias, bias_grad))
    return grad_input, *(
        torch.empty_like(p) if want and p is not None else input.new_empty(0) for p, want in parameters
    )


def _fake_update(*_: Any) -> None:
    return None


batch_norm: Operator = define(
    "batch_norm(Tensor input, Tensor running_mean, Tensor running_var, Tensor? weight, Tensor? bias,"
    " float eps) -> Tensor",
    fallback=pytorch.batch_norm,
    fake=_output_like,
)
batch_norm_bwd: Operators = define(
    "batch_norm_bwd(Tensor grad_output, Tensor input, Tensor statistics, Tensor? weight, Tensor? bias,"
    " float eps, bool training, bool input_grad=True, bool weight_grad=True, bool bias_grad=True)"
    " -> (Tensor, Tensor, Tensor)",
    fallback=pytorch.batch_norm_bwd,
    fake=_fake_bwd,
)
batch_norm_update: Operators = define(
    "batch_norm_update(Tensor(a!)? running_mean, Tensor(b!)? running_var,"
    " Tensor(c!)? num_batches_tracked, Tensor statistics, SymInt count, float? momentum) -> ()",
    fallback=pytorch.batch_norm_update,
    fake=_fake_update,
)


def _inputs(name: str) -> str:
    given = ", Tensor running_mean, Tensor running_var" if name == "batch_norm_fixed" else ""
    return f"(Tensor input{given}, Tensor? weight, Tensor? bias, float eps)"


def _define_fwd(name: str) -> tuple[Operators, Operators]:
    """``normkit::{name}``, with a gradient that the compiler can see, and plain ``{name}_fwd``.

    Not one for both: PyTorch would ask in Python at each eager call whether a gradient is wanted.
    """
    signature = f"{_inputs(name)} -> (Tensor, Tensor)"
    fallback = getattr(pytorch, f"{name}_fwd")
    compiled, plain = (
        define(n + signature, fallback=fallback, fake=_fake_fwd) for n in (name, f"{name}_fwd")
    )
    return compiled, plain


batch_norm_train, batch_norm_train_fwd = _define_fwd("batch_norm_train")
batch_norm_fixed, batch_norm_fixed_fwd = _define_fwd("batch_norm_fixed")
_STEP = (
    "(Tensor input, Tensor? weight, Tensor? bias, float eps, Tensor(a!)? running_mean,"
    " Tensor(b!)? running_var, Tensor(c!)? num_batches_tracked, float? momentum)"
)
batch_norm_step: Operators = define(
    f"batch_norm_step{_STEP} -> (Tensor, Tensor)",
    fallback=pytorch.batch_norm_step,
    fake=_fake_fwd,
)
batch_norm_direct, batch_norm_step_direct = direct(batch_norm), direct(batch_norm_step)
batch_norm_at_once: Operator = at_once(batch_norm)
may_train = asked_in_eager_mode("may_train")
_fixed_direct, _bwd_direct = direct(batch_norm_fixed_fwd), direct(batch_norm_bwd)


class BatchNormStep(torch.autograd.Function):
    """The eager route to a training step with gradients; see `normkit.ops.row_norm.RowNorm`."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        *tracked: Any,
    ) -> Tensor:
        output, statistics = batch_norm_step_direct(input, weight, bias, eps, *tracked)
        ctx.save_for_backward(input, weight, bias, statistics)
        ctx.eps = eps
        return output  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return (*_train_backward(ctx, grad_output), *[None] * 4)


def _train_setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    input, weight, bias, ctx.eps = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(input, weight, bias, output[1])


def _train_backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    input, weight, bias, statistics = ctx.saved_tensors
    if torch.is_grad_enabled():
        return (*_differentiate_again(grad_output, input, None, None, weight, bias, ctx.eps), None)
    wanted = ctx.needs_input_grad[:3]
    return (*_gradients(grad_output, input, statistics, weight, bias, ctx.eps, True, wanted), None)


def _gradients(
    grad_output: Tensor,
    input: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    training: bool,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, ...]:
    x, w, b = wanted
    if x and (w or weight is None) and (b or bias is None):
        grads = _bwd_direct(grad_output, input, statistics, weight, bias, eps, training)
    else:
        grads = _bwd_direct(grad_output, input, statistics, weight, bias, eps, training, x, w, b)
    return grads[0] if x else None, grads[1] if w else None, grads[2] if b else None


class BatchNormFixed(torch.autograd.Function):
    """The eager route to given statistics with gradients (fine-tuning with BatchNorm frozen)."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        result = _fixed_direct(input, running_mean, running_var, weight, bias, eps)
        ctx.save_for_backward(input, running_mean, running_var, weight, bias, result[1])
        ctx.eps = eps
        return result[0]  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return _fixed_backward(ctx, grad_output)


def _fixed_setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.eps = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*tensors, output[1])


def _fixed_backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    input, mean, var, weight, bias, statistics = ctx.saved_tensors
    if torch.is_grad_enabled():
        grads = _differentiate_again(grad_output, input, mean, var, weight, bias, ctx.eps)
    else:
        wants = ctx.needs_input_grad
        grads = _gradients(
            grad_output, input, statistics, weight, bias, ctx.eps, False, (wants[0], wants[3], wants[4])
        )
    return grads[0], None, None, grads[1], grads[2], None


def _differentiate_again(
    grad_output: Tensor,
    input: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor | None, ...]:
    """By the batch's statistics where none are given."""

    def formula(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        if mean is None or var is None:
            return pytorch.batch_norm_train_formula(x, w, b, eps)[0]
        return pytorch.batch_norm_formula(x, mean, var, w, b, eps)

    return differentiate_again(formula, (input, weight, bias), grad_output)


define_again(
    "batch_norm_bwd_formula(Tensor grad_output, Tensor input, Tensor? mean, Tensor? var, Tensor? weight,"
    " Tensor? bias, float eps) -> (Tensor, Tensor, Tensor)",
    _differentiate_again,
)
batch_norm_step_with_grad: Operator = with_gradient(
    f"batch_norm_step_with_grad{_STEP} -> Tensor", BatchNormStep, batch_norm_step_direct
)
batch_norm_fixed_with_grad: Operator = with_gradient(
    f"batch_norm_fixed_with_grad{_inputs('batch_norm_fixed')} -> Tensor", BatchNormFixed, _fixed_direct
)
torch.library.register_autograd(
    "normkit::batch_norm_train", _train_backward, setup_context=_train_setup_context
)
torch.library.register_autograd(
    "normkit::batch_norm_fixed", _fixed_backward, setup_context=_fixed_setup_context
)
