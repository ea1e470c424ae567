"""BatchNorm in PyTorch's own operators."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from normkit.kernels.pytorch.common import accumulation_dtype, centre, check_dense, check_dtypes, tell


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of images or volumes (N, C, *) are adjacent and positions follow at one stride.

    A transposed (N, L, C) is not channels-last to PyTorch, whose output is then contiguous. A layout
    that can also be read plane by plane counts as contiguous, not as channels-last.
    """
    if x.dim() < 4 or math.prod(x.shape[2:]) == 1 or x.numel() == 0:
        return False
    expected = 1
    for size, stride in zip(reversed(x.shape[2:]), reversed(x.stride()[2:]), strict=True):
        if size != 1 and stride != expected:
            break
        expected *= size
    else:
        return False
    if x.shape[1] != 1 and x.stride(1) != 1:
        return False
    outer = [d for d in (*range(x.dim() - 1, 1, -1), 0) if x.shape[d] != 1]
    return all(x.stride(a) * x.shape[a] == x.stride(b) for a, b in itertools.pairwise(outer))


def _per_channel(x: Tensor, v: Tensor) -> Tensor:
    return v.reshape(1, -1, *[1] * (x.dim() - 2))


def _apply(input: Tensor, d: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scale = rstd if weight is None else rstd * weight.to(rstd.dtype)
    y = d * _per_channel(d, scale)
    y = y if bias is None else y + _per_channel(d, bias.to(rstd.dtype))
    return _laid_out(y.to(input.dtype), input)


def _laid_out(y: Tensor, like: Tensor) -> Tensor:
    if y.numel() == 0:
        return y.new_empty(y.shape)
    if is_channels_last(like):
        return y.movedim(1, -1).contiguous().movedim(-1, 1)
    return y.contiguous()


def batch_norm(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """BatchNorm with given statistics."""
    check_channels(input, running_mean, running_var, weight, bias, eps=eps)
    tell(input.device)
    return batch_norm_formula(input, running_mean, running_var, weight, bias, eps)


def batch_norm_formula(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """`batch_norm` for PyTorch to differentiate and transform, to any order."""
    x = input.to(accumulation_dtype(input.dtype))
    mean, var = running_mean.to(x.dtype), running_var.to(x.dtype)
    return _apply(input, x - _per_channel(x, mean), torch.rsqrt(var + eps), weight, bias)


def batch_norm_fixed_fwd(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """BatchNorm with given statistics, and those as the backward pass wants them."""
    output = batch_norm(input, running_mean, running_var, weight, bias, eps)
    mean, var = (t.to(accumulation_dtype(input.dtype)) for t in (running_mean, running_var))
    return output, torch.stack([torch.rsqrt(var + eps), mean, torch.zeros_like(mean), var])


def batch_norm_train_fwd(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """BatchNorm with the batch's statistics, and those."""
    check_channels(input, weight, bias, eps=eps)
    tell(input.device)
    return batch_norm_train_formula(input, weight, bias, eps)


def batch_norm_train_formula(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """`batch_norm_train_fwd` for PyTorch to differentiate and transform, to any order."""
    x = input.to(accumulation_dtype(input.dtype))
    if x.numel() == 0:
        return _laid_out(input.clone(), input), x.new_zeros((4, x.shape[1]))
    dims = [0, *range(2, x.dim())]
    first = _per_channel(x, x[0].reshape(x.shape[1], -1)[:, 0])
    d, mean, residual = centre(x, first, dims)
    var = d.square().mean(dims)
    rstd = torch.rsqrt(var + eps)
    statistics = torch.stack([rstd, mean.flatten(), residual.flatten(), var])
    return _apply(input, d, rstd, weight, bias), statistics


def batch_norm_bwd(
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
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of BatchNorm; an empty tensor for one that is not wanted."""
    tell(input.device)
    x = input.to(accumulation_dtype(input.dtype))
    g = grad_output.to(x.dtype)
    rstd, mean, residual = (_per_channel(x, s) for s in statistics[:3])
    x_hat = ((x - mean) - residual) * rstd
    dims = [0, *range(2, x.dim())]
    count = x.numel() // max(1, x.shape[1])
    sums = (g * x_hat).sum(dims), g.sum(dims)
    grad_input = input.new_empty(0)
    if input_grad:
        grad = g
        if training and count:
            grad = g - _per_channel(x, sums[1] / count) - x_hat * _per_channel(x, sums[0] / count)
        scale = rstd if weight is None else rstd * _per_channel(x, weight.to(x.dtype))
        grad_input = _laid_out((grad * scale).to(input.dtype), input)
    wanted = ((weight, weight_grad), (bias, bias_grad))
    grads = [
        s.to(p.dtype) if want and p is not None else input.new_empty(0)
        for s, (p, want) in zip(sums, wanted, strict=True)
    ]
    return grad_input, grads[0], grads[1]


def batch_norm_update(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    statistics: Tensor,
    count: int,
    momentum: float | None,
) -> None:
    """Move the running statistics towards a batch's; a momentum of None averages all batches."""
    check_update(running_mean, running_var, num_batches_tracked, statistics, count, momentum)
    tell(statistics.device)
    batch_norm_update_formula(running_mean, running_var, num_batches_tracked, statistics, count, momentum)


def check_update(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    statistics: Tensor,
    count: int,
    momentum: float | None,
) -> None:
    """Refuse what running statistics can't be moved by."""
    if count < 2 or (momentum is None and num_batches_tracked is None):
        raise RuntimeError("normkit: a cumulative average needs num_batches_tracked, a variance two values")
    if any(t is not None and t.shape != statistics.shape[1:] for t in (running_mean, running_var)):
        raise RuntimeError("normkit: running statistics must have one element per channel")
    check_dense(running_mean, running_var, num_batches_tracked, statistics)


def batch_norm_update_formula(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    statistics: Tensor,
    count: int,
    momentum: float | None,
) -> None:
    """`batch_norm_update` of arguments that are right, for PyTorch to trace."""
    factor: Tensor | float = 0.0 if momentum is None else momentum
    if num_batches_tracked is not None:
        num_batches_tracked.add_(1)
        if momentum is None:
            factor = 1 / num_batches_tracked.to(statistics.dtype)
    for running, batch in (
        (running_mean, statistics[1]),
        (running_var, statistics[3] * (count / (count - 1))),
    ):
        if running is not None:
            running.copy_(running + factor * (batch - running))


def batch_norm_step(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    momentum: float | None,
) -> tuple[Tensor, Tensor]:
    """A training step: BatchNorm with the batch's statistics, and the running ones moved towards them."""
    result = batch_norm_train_fwd(input, weight, bias, eps)
    count = input.numel() // max(1, input.shape[1])
    if count == 0:
        running_mean = running_var = None
    if any(t is not None for t in (running_mean, running_var, num_batches_tracked)):
        batch_norm_update(running_mean, running_var, num_batches_tracked, result[1], max(count, 2), momentum)
    return result


def check_channels(x: Tensor, *vectors: Tensor | None, eps: float) -> None:
    """Refuse what a BatchNorm can't be of."""
    if x.dim() < 2 or not eps >= 0:  # a NaN neither
        raise RuntimeError("normkit: input must be (N, C, *), and eps not negative")
    check_dense(x, *vectors)
    check_dtypes(x, *vectors)
    if any(v is not None and v.shape != x.shape[1:2] for v in vectors):
        raise RuntimeError("normkit: per-channel tensors must have one element per channel")
    if any(v is not None and v.device != x.device for v in vectors):
        raise RuntimeError("normkit: per-channel tensors must be on the input's device")
