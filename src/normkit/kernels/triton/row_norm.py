"""The row-norm operators on GPUs, as `normkit.ops.row_norm` defines them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from normkit.kernels.pytorch import accumulation_dtype, check_rows
from normkit.kernels.triton import launch
from normkit.kernels.triton import row_norm_kernels as kernels
from normkit.kernels.triton.device import chip_of, on

ACCUMULATE = {torch.float32: tl.float32, torch.float64: tl.float64}


def layer_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, trailing: int = 1
) -> Tensor:
    """LayerNorm, saving nothing."""
    return _forward(input, weight, bias, eps, True, trailing, False, 0.0, keep=False)[0]


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
    return _forward(input, weight, bias, eps, False, trailing, outside, gain_offset, keep=False)[0]


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
    output, statistics = _forward(
        input, weight, bias, eps, centred, trailing, outside, gain_offset, keep=True
    )
    assert statistics is not None
    return output, statistics


def _forward(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    centred: bool,
    trailing: int,
    outside: bool,
    gain_offset: float,
    *,
    keep: bool,
) -> tuple[Tensor, Tensor | None]:
    if eps is None:
        eps = torch.finfo(input.dtype).eps
    check_rows(input, weight, bias, eps, trailing)
    x = _matrix(input, trailing)
    rows, n = x.shape
    dtype = accumulation_dtype(input.dtype)
    output = torch.empty(input.shape, dtype=input.dtype, device=input.device)
    statistics = None
    if keep:
        make = torch.zeros if n == 0 else torch.empty
        statistics = make((1 + 2 * centred + outside, rows), dtype=dtype, device=input.device)
    if x.numel() == 0:
        return output, statistics
    how = launch.row_forward(n, dtype.itemsize, chip_of(input.device))
    with on(input.device):
        kernels.forward[(triton.cdiv(rows, how.rows),)](
            x, output, dense(weight), dense(bias), statistics, rows, n, x.stride(0),
            *in_two(eps), *in_two(gain_offset),
            A=ACCUMULATE[dtype], CENTRED=centred, OUTSIDE=outside,
            ROWS=how.rows, COLUMNS=how.columns, HELD=how.held, num_warps=how.warps,
        )  # fmt: skip
    return output, statistics


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
    if grad_output.shape != input.shape or grad_output.dtype != input.dtype:
        raise RuntimeError("normkit: grad_output must have the input's shape and dtype")
    check_rows(input, weight, bias, 0.0, trailing)
    x, g = _matrix(input, trailing), _matrix(grad_output, trailing)
    rows, n = x.shape
    dtype = accumulation_dtype(input.dtype)
    if statistics.shape != (1 + 2 * centred + outside, rows) or statistics.dtype != dtype:
        raise RuntimeError("normkit: statistics are not those of the input")
    grad_x = torch.empty(input.shape, dtype=input.dtype, device=input.device) if input_grad else None
    wanted = [p is not None and w for p, w in ((weight, weight_grad), (bias, bias_grad))]
    how = launch.row_backward(n, dtype.itemsize, chip_of(input.device))
    each = launch.rows_each(rows, how, any(wanted))
    parts = triton.cdiv(rows, each) if x.numel() else 0
    sums = [torch.empty((parts, n), dtype=dtype, device=input.device) if w else None for w in wanted]
    with on(input.device):
        if parts:
            _launch_backward(g, x, statistics.contiguous(), weight, grad_x, sums, how, each, gain_offset,
                             A=ACCUMULATE[dtype], CENTRED=centred, OUTSIDE=outside)  # fmt: skip
        gradients = [
            p.new_empty(0) if s is None else add_up(s, p)
            for s, p in zip(
                sums, (input if weight is None else weight, input if bias is None else bias), strict=True
            )
        ]
    return input.new_empty(0) if grad_x is None else grad_x, gradients[0], gradients[1]


def _launch_backward(
    g: Tensor,
    x: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    grad_x: Tensor | None,
    sums: list[Tensor | None],
    how: launch.Launch,
    each: int,
    offset: float,
    **recipe: Any,
) -> None:
    rows, n = x.shape
    gain = dense(weight)
    strides = g.stride(0), x.stride(0)
    if how.held:
        kernels.backward[(triton.cdiv(rows, each),)](
            g, x, statistics, gain, grad_x, *sums, rows, n, *strides, *in_two(offset), each,
            ROWS=how.rows, COLUMNS=how.columns, num_warps=how.warps, **recipe,
        )  # fmt: skip
        return
    if grad_x is not None:
        kernels.backward_in_steps[(rows,)](
            g, x, statistics, gain, grad_x, rows, n, *strides, *in_two(offset),
            COLUMNS=how.columns, num_warps=how.warps, **recipe,
        )  # fmt: skip
    if any(s is not None for s in sums):
        of_sums = launch.row_sums(n, statistics.element_size(), chip_of(x.device))
        kernels.parameter_sums[(triton.cdiv(n, of_sums.columns), triton.cdiv(rows, each))](
            g, x, statistics, *sums, rows, n, *strides, each,
            COLUMNS=of_sums.columns, num_warps=of_sums.warps, **recipe,
        )  # fmt: skip


def add_up(parts: Tensor, parameter: Tensor) -> Tensor:
    """The sum of all parts, in the parameter's shape and dtype."""
    count, n = parts.shape
    if count == 0:
        return torch.zeros_like(parameter, memory_format=torch.contiguous_format)
    total = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device)
    how = launch.PARTS
    kernels.add_parts[(triton.cdiv(n, how.columns),)](
        parts, total, count, n, A=ACCUMULATE[parts.dtype],
        PARTS=how.rows, COLUMNS=how.columns, num_warps=how.warps,
    )  # fmt: skip
    return total


def _matrix(x: Tensor, trailing: int) -> Tensor:
    """The rows of x, of adjacent elements; a copy only where they are not."""
    lead = x.dim() - trailing
    rows = x.reshape(math.prod(x.shape[:lead]), math.prod(x.shape[lead:]))
    return rows if rows.shape[1] == 1 or rows.stride(1) == 1 else rows.contiguous()


def dense(parameter: Tensor | None) -> Tensor | None:
    """A parameter, its elements adjacent."""
    return None if parameter is None else parameter.contiguous()


def in_two(eps: float) -> tuple[float, float]:
    """Eps as two numbers that float32 holds: what a kernel is given as a scalar, it is given as such."""
    high = float(np.float32(eps))
    return high, eps - high
