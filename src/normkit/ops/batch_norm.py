"""BatchNorm as PyTorch operators, split as statistics, apply and update.

`batch_norm` applies given statistics (inference). `batch_norm_train` computes a batch's statistics and
applies them while the data is in cache; it returns them as (4, C) in the accumulation dtype: rstd, the
mean, what rounding the mean lost, and the biased variance. `batch_norm_update` moves the running
statistics towards them; `batch_norm_bwd` is the gradient of both forwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normkit.kernels import pytorch
from normkit.kernels.pytorch import accumulation_dtype
from normkit.ops._define import Operator, Operators, define, differentiate_again


def _output_like(x: Tensor, *_: Any) -> Tensor:
    """An uninitialised output: channels-last where the input is, else contiguous."""
    if pytorch.is_channels_last(x):
        return x.movedim(1, -1).new_empty(x.movedim(1, -1).shape).movedim(-1, 1)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _fake_train(input: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    kept = (4, input.shape[1])
    return _output_like(input), input.new_empty(kept, dtype=accumulation_dtype(input.dtype))


def _fake_bwd(
    grad_output: Tensor,
    input: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    *wanted: bool,
) -> tuple[Tensor, ...]:
    likes = (_output_like(input), *(None if p is None else torch.empty_like(p) for p in (weight, bias)))
    return tuple(
        like if want and like is not None else input.new_empty(0)
        for like, want in zip(likes, wanted, strict=True)
    )


def _fake_update(*_: Any) -> None:
    return None


batch_norm: Operator = define(
    "batch_norm(Tensor input, Tensor running_mean, Tensor running_var, Tensor? weight, Tensor? bias,"
    " float eps) -> Tensor",
    fallback=pytorch.batch_norm,
    fake=_output_like,
)
batch_norm_train: Operators = define(
    "batch_norm_train(Tensor input, Tensor? weight, Tensor? bias, float eps) -> (Tensor, Tensor)",
    fallback=pytorch.batch_norm_train,
    fake=_fake_train,
)
batch_norm_bwd: Operators = define(
    "batch_norm_bwd(Tensor grad_output, Tensor input, Tensor statistics, Tensor? weight, Tensor? bias,"
    " bool training, bool input_grad, bool weight_grad, bool bias_grad) -> (Tensor, Tensor, Tensor)",
    fallback=pytorch.batch_norm_bwd,
    fake=_fake_bwd,
)
batch_norm_update: Operators = define(
    "batch_norm_update(Tensor(a!)? running_mean, Tensor(b!)? running_var,"
    " Tensor(c!)? num_batches_tracked, Tensor statistics, SymInt count, float? momentum) -> ()",
    fallback=pytorch.batch_norm_update,
    fake=_fake_update,
)


class BatchNormTrain(torch.autograd.Function):
    """The eager route to a training step with gradients; see `normkit.ops.row_norm.RowNorm`."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor]:
        output, statistics = batch_norm_train(input, weight, bias, eps)
        ctx.mark_non_differentiable(statistics)
        ctx.save_for_backward(input, weight, bias, statistics)
        ctx.eps = eps
        return output, statistics

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return _train_backward(ctx, grad_output)


def _train_setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    input, weight, bias, ctx.eps = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(input, weight, bias, output[1])


def _train_backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    input, weight, bias, statistics = ctx.saved_tensors
    if torch.is_grad_enabled():
        grads = differentiate_again(
            lambda x, w, b: pytorch.batch_norm_train_formula(x, w, b, ctx.eps)[0],
            (input, weight, bias),
            grad_output,
        )
        return (*grads, None)
    return (*_gradients(grad_output, input, statistics, weight, bias, True, ctx.needs_input_grad[:3]), None)


def _gradients(
    grad_output: Tensor,
    input: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    grads = batch_norm_bwd(grad_output, input, statistics, weight, bias, training, *wanted)
    return tuple(g if want else None for g, want in zip(grads, wanted, strict=True))


class BatchNormInference(torch.autograd.Function):
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
        _inference_setup_context(ctx, (input, running_mean, running_var, weight, bias, eps), None)
        return batch_norm(input, running_mean, running_var, weight, bias, eps)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return _inference_backward(ctx, grad_output)


def _inference_setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor | None) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _inference_backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    input, mean, var, weight, bias = ctx.saved_tensors
    if torch.is_grad_enabled():
        grad_input, *grads = differentiate_again(
            lambda x, w, b: pytorch.batch_norm_formula(x, mean, var, w, b, ctx.eps),
            (input, weight, bias),
            grad_output,
        )
        return grad_input, None, None, *grads, None
    dtype = accumulation_dtype(input.dtype)
    mean, var = mean.to(dtype), var.to(dtype)
    statistics = torch.stack([torch.rsqrt(var + ctx.eps), mean, torch.zeros_like(mean), var])
    wanted = [ctx.needs_input_grad[i] for i in (0, 3, 4)]
    grad_input, *grads = _gradients(grad_output, input, statistics, weight, bias, False, wanted)
    return grad_input, None, None, *grads, None


torch.library.register_autograd(
    "normkit::batch_norm_train", _train_backward, setup_context=_train_setup_context
)
torch.library.register_autograd(
    "normkit::batch_norm", _inference_backward, setup_context=_inference_setup_context
)
