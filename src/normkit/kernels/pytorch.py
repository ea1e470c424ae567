"""The operators in PyTorch's own operators: for every device that has no kernel of ours.

Each function stands beside the schema it serves (`normkit.ops`) and returns the same results as
the kernels do, saved statistics included; only slower.
"""

from __future__ import annotations

import itertools
import math
import warnings

import torch
from torch import Tensor

_told: set[str] = set()
_DTYPES = {torch.float64, torch.float32, torch.bfloat16, torch.float16}


def _tell(device: torch.device) -> None:
    """Say once per kind of device that no kernel of ours serves it, and what to do."""
    if device.type in _told:
        return
    _told.add(device.type)
    remedy = (
        "the C++ core could not be loaded: install a C++20 compiler and reinstall with "
        "`pip install --no-build-isolation`"
        if device.type == "cpu"
        else "normkit has no kernels for this kind of device yet"
    )
    warnings.warn(
        f"normkit uses PyTorch's own operators on {device.type!r} ({remedy}). Results are the same, "
        "speed is not. `normkit.backends()` says which kernels serve which device.",
        stacklevel=4,
    )


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype statistics are computed and saved in: float32 for the half types."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def _centre(x: Tensor, shift: Tensor, dims: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """``x`` less its mean, and the mean as two numbers (its rounding and what that lost)."""
    d = x - shift
    m = d.mean(dims, keepdim=True)
    mean = shift + m
    tail = mean - shift
    return d - m, mean, (shift - (mean - tail)) + (m - tail)


def _given(d: Tensor, parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.to(d.dtype)


# ------------------------------------------------------------------- row norms
def layer_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, trailing: int = 1
) -> Tensor:
    """LayerNorm, saving nothing."""
    return row_norm_fwd(input, weight, bias, eps, True, trailing)[0]


def rms_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    trailing: int = 1,
    outside: bool = False,
    gain_offset: float = 0.0,
) -> Tensor:
    """RMSNorm, saving nothing."""
    return row_norm_fwd(input, weight, bias, eps, False, trailing, outside, gain_offset)[0]


def row_norm_fwd(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    centred: bool,
    trailing: int = 1,
    outside: bool = False,
    gain_offset: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """A row norm and its statistics."""
    if eps is None:
        eps = torch.finfo(input.dtype).eps
    check_rows(input, weight, bias, eps, trailing)
    _tell(input.device)
    return row_norm_formula(input, weight, bias, eps, centred, trailing, outside, gain_offset)


def row_norm_formula(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    centred: bool,
    trailing: int = 1,
    outside: bool = False,
    gain_offset: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`row_norm_fwd` for PyTorch to differentiate and transform, to any order."""
    if eps is None:
        eps = torch.finfo(input.dtype).eps
    x, gain, shift = _rows(input, weight, bias, trailing, gain_offset)
    kept: list[Tensor] = []
    if x.shape[1] == 0:
        zeros = x.new_zeros((1 + 2 * centred + outside, x.shape[0]))
        return torch.empty_like(input, memory_format=torch.contiguous_format), zeros
    if centred:
        x, *kept = _centre(x, x[:, :1], [1])
    var = x.square().mean(1, keepdim=True)
    if outside:
        # A root has no slope at 0, and the gradient no share of it there.
        some = var > 0
        root = torch.where(some, torch.where(some, var, 1).sqrt(), 0)
        rstd = 1 / (root + eps)
        kept.append(torch.where(root > 0, (root + eps) / root, 0))
    else:
        rstd = torch.rsqrt(var + eps)
    y = x * rstd
    y = y if gain is None else y * gain
    y = y if shift is None else y + shift
    output = y.to(input.dtype).reshape(input.shape)
    return output, torch.stack([t[:, 0] for t in (rstd, *kept)])


def row_norm_bwd(
    grad_output: Tensor,
    input: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    centred: bool,
    trailing: int = 1,
    outside: bool = False,
    gain_offset: float = 0.0,
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a row norm; an empty tensor for one that is not wanted."""
    _tell(input.device)
    x, gain, _ = _rows(input, weight, bias, trailing, gain_offset)
    g = grad_output.to(x.dtype).reshape(x.shape)
    rstd, *rest = statistics[:, :, None]
    x_hat = ((x - rest[0]) - rest[1] if centred else x) * rstd
    none = input.new_empty(0)
    grad_input = none
    if input_grad:
        gw = g if gain is None else g * gain
        pull = x_hat * (gw * x_hat).mean(1, keepdim=True)
        grad = gw - (pull * rest[-1] if outside else pull)
        if centred:
            grad = grad - gw.mean(1, keepdim=True)
        grad_input = (grad * rstd).to(input.dtype).reshape(input.shape)
    sums = ((weight, weight_grad, g * x_hat), (bias, bias_grad, g))
    grads = [
        t.sum(0).reshape(p.shape).to(p.dtype) if wanted and p is not None else none.clone()
        for p, wanted, t in sums
    ]
    return grad_input, grads[0], grads[1]


def check_rows(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, trailing: int) -> None:
    """Refuse what a row norm can't be of."""
    if not 1 <= trailing <= x.dim() or eps < 0:
        raise RuntimeError("normkit: trailing and eps must lie in their range")
    shape = x.shape[x.dim() - trailing :]
    if any(p is not None and p.shape != shape for p in (weight, bias)):
        raise RuntimeError("normkit: a parameter must have the shape of the normalized dimensions")
    _check_dense(x, weight, bias)
    if any(p is not None and p.device != x.device for p in (weight, bias)):
        raise RuntimeError("normkit: a parameter must be on the input's device")
    if x.dtype not in _DTYPES:
        raise RuntimeError("normkit: input must be float64, float32, bfloat16 or float16")


def _check_dense(*tensors: Tensor | None) -> None:
    if any(t is not None and t.layout is not torch.strided for t in tensors):
        raise RuntimeError("normkit: tensors must be dense")


def _rows(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, trailing: int, gain_offset: float
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    n = math.prod(input.shape[input.dim() - trailing :])
    rows = math.prod(input.shape[: input.dim() - trailing])
    x = input.to(accumulation_dtype(input.dtype)).reshape(rows, n)
    gain, shift = (None if p is None else p.to(x.dtype).reshape(n) for p in (weight, bias))
    return x, gain if gain is None else gain + gain_offset, shift


# -------------------------------------------------------------------- BatchNorm
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
    _tell(input.device)
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
    _tell(input.device)
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
    d, mean, residual = _centre(x, first, dims)
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
    _tell(input.device)
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
    _tell(statistics.device)
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
    _check_dense(running_mean, running_var, num_batches_tracked, statistics)


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
    if x.dim() < 2 or eps < 0 or x.dtype not in _DTYPES:
        raise RuntimeError("normkit: input must be (N, C, *), of a dtype we serve, and eps not negative")
    _check_dense(x, *vectors)
    if any(v is not None and v.shape != x.shape[1:2] for v in vectors):
        raise RuntimeError("normkit: per-channel tensors must have one element per channel")
