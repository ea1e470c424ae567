"""Row norms in PyTorch's own operators: LayerNorm and RMSNorm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from normkit.kernels.pytorch.common import accumulation_dtype, centre, check_dense, check_dtypes, tell


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
    tell(input.device)
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
        x, *kept = centre(x, x[:, :1], [1])
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
    tell(input.device)
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
    if not 1 <= trailing <= x.dim() or not eps >= 0:  # a NaN neither
        raise RuntimeError("normkit: trailing and eps must lie in their range")
    shape = x.shape[x.dim() - trailing :]
    if any(p is not None and p.shape != shape for p in (weight, bias)):
        raise RuntimeError("normkit: a parameter must have the shape of the normalized dimensions")
    check_dense(x, weight, bias)
    check_dtypes(x, weight, bias)
    if any(p is not None and p.device != x.device for p in (weight, bias)):
        raise RuntimeError("normkit: a parameter must be on the input's device")


def _rows(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, trailing: int, gain_offset: float
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    n = math.prod(input.shape[input.dim() - trailing :])
    rows = math.prod(input.shape[: input.dim() - trailing])
    x = input.to(accumulation_dtype(input.dtype)).reshape(rows, n)
    gain, shift = (None if p is None else p.to(x.dtype).reshape(n) for p in (weight, bias))
    return x, gain if gain is None else gain + gain_offset, shift
