"""Row norms in Triton: LayerNorm and RMSNorm, forward and backward, of rows that registers hold.

A program takes ROWS rows of COLUMNS elements or fewer, which stay in registers between their statistics
and their results. A is the accumulation dtype. `statistics` is that of the C++ core, (k, rows): rstd;
mean and residual where centred; slope where eps stands outside the root.
"""

from __future__ import annotations

import triton
import triton.language as tl

from normkit.kernels.triton.arithmetic import inverse, inverse_root, scale_for, store_rounded, two_sum


@triton.jit
def moments(x, shift, mask, share, CENTRED: tl.constexpr):
    """Distances from the mean, the mean less `shift`, and the sum of squares of the former, of each row.

    share: 1 / the number of elements.
    """
    if CENTRED:
        d = tl.where(mask, x - shift, 0.0)
        mean = tl.sum(d, 1, keep_dims=True) * share
        d = tl.where(mask, d - mean, 0.0)
    else:
        d, mean = x, shift
    return d, mean, tl.sum(d * d, 1, keep_dims=True)


@triton.jit
def rstd_and_slope(var, scale, eps, OUTSIDE: tl.constexpr):
    """1 / the deviation of data that was scaled, and of the data itself, and the slope."""
    if OUTSIDE:
        root = tl.sqrt(var)
        rstd = inverse(root + eps * scale)
        flat = inverse(0.0 * var + eps)
        slope = tl.where(var > 0, (root + eps * scale) * inverse(root), 0.0)
    else:
        rstd = inverse_root(var + eps * scale * scale)
        flat = inverse_root(0.0 * var + eps)
        slope = 1.0 + 0.0 * var
    # Scaled down, eps may have vanished beside a variance of 0.
    rstd = tl.where(var == 0, flat, rstd)
    return rstd, tl.where(var == 0, flat, rstd * scale), slope


@triton.jit
def keep_statistics(
    statistics, row, rows, mask, back, shift, mean, rstd, slope, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr
):
    """Store the statistics of rows whose mean, scaled by 1 / back, is shift + mean."""
    tl.store(statistics + row, rstd, mask)
    if CENTRED:
        total, lost = two_sum(shift, mean)
        statistics += rows
        tl.store(statistics + row, total * back, mask)
        statistics += rows
        tl.store(statistics + row, lost * back, mask)
    if OUTSIDE:
        tl.store(statistics + rows + row, slope, mask)


@triton.jit
def affine(x_hat, gain, bias, col, mask, offset, A: tl.constexpr):
    """x_hat * (offset + gain) + bias."""
    y = x_hat
    if gain is not None:
        y = y * (tl.load(gain + col, mask, other=0.0).to(A) + offset)
    if bias is not None:
        y = y + tl.load(bias + col, mask, other=0.0).to(A)
    return y


@triton.jit
def forward(
    x, y, gain, bias, statistics, rows, n, x_stride, eps_high, eps_low, offset_high, offset_low,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Rows of n, y = x_hat * (offset + gain) + bias, dense in y; statistics where they are kept."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    col = tl.arange(0, COLUMNS)[None, :]
    mask = (row < rows) & (col < n)
    one = tl.full((1, 1), 1.0, A)
    offset = one * offset_high + one * offset_low
    eps = one * eps_high + one * eps_low
    share = inverse(one * n)
    v = tl.load(x + row * x_stride + col, mask, other=0.0).to(A)
    scale, back = scale_for(tl.max(tl.abs(v), 1, keep_dims=True), eps * eps if OUTSIDE else eps)
    v *= scale
    shift = 0.0 * scale
    if CENTRED:  # what is summed relative to about the mean does not cancel
        shift = tl.sum(v * share, 1, keep_dims=True)
    d, mean, squares = moments(v, shift, mask, share, CENTRED)
    scaled_rstd, rstd, slope = rstd_and_slope(squares * share, scale, eps, OUTSIDE)
    store_rounded(y + row * n + col, affine(d * scaled_rstd, gain, bias, col, col < n, offset, A), mask)
    if statistics is not None:
        keep_statistics(statistics, row, rows, row < rows, back, shift, mean, rstd, slope, CENTRED, OUTSIDE)


@triton.jit
def saved(statistics, row, rows, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr):
    """rstd, mean, residual and slope of rows, as they were kept."""
    there = row < rows
    rstd = tl.load(statistics + row, there, other=0.0)
    mean, residual, slope = 0.0 * rstd, 0.0 * rstd, 1.0 + 0.0 * rstd
    if CENTRED:
        statistics += rows
        mean = tl.load(statistics + row, there, other=0.0)
        statistics += rows
        residual = tl.load(statistics + row, there, other=0.0)
    if OUTSIDE:
        slope = tl.load(statistics + rows + row, there, other=0.0)
    return rstd, mean, residual, slope


@triton.jit
def normalized(x, mask, rstd, mean, residual, CENTRED: tl.constexpr):
    """x_hat."""
    if CENTRED:
        return tl.where(mask, ((x - mean) - residual) * rstd, 0.0)
    return x * rstd


@triton.jit
def backward(
    grad_y, x, statistics, gain, grad_x, gain_parts, bias_parts, rows, n, grad_stride, x_stride,
    offset_high, offset_low, rows_each,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """grad_x of rows that stay in registers, and the sums of gain's and bias's gradients over rows_each."""
    program = tl.program_id(0).to(tl.int64)
    col = tl.arange(0, COLUMNS)[None, :]
    one = tl.full((1, 1), 1.0, A)
    offset = one * offset_high + one * offset_low
    share = inverse(one * n)
    gains = one
    if gain is not None:
        gains = tl.load(gain + col, col < n, other=0.0).to(A) + offset
    gain_sum = tl.zeros((ROWS, COLUMNS), A)
    bias_sum = tl.zeros((ROWS, COLUMNS), A)
    begin = program * rows_each
    end = tl.minimum(begin + rows_each, rows)
    for start in range(begin, end, ROWS):
        row = (start + tl.arange(0, ROWS))[:, None]
        mask = (row < end) & (col < n)
        v = tl.load(x + row * x_stride + col, mask, other=0.0).to(A)
        g = tl.load(grad_y + row * grad_stride + col, mask, other=0.0).to(A)
        rstd, mean, residual, slope = saved(statistics, row, rows, CENTRED, OUTSIDE)
        x_hat = normalized(v, mask, rstd, mean, residual, CENTRED)
        if gain_parts is not None:
            gain_sum += g * x_hat
        if bias_parts is not None:
            bias_sum += g
        if grad_x is not None:
            gw = g * gains
            pull = tl.sum(gw * x_hat, 1, keep_dims=True) * share * slope
            d = gw - x_hat * pull
            if CENTRED:
                d -= tl.sum(gw, 1, keep_dims=True) * share
            store_rounded(grad_x + row * n + col, d * rstd, mask)
    at = program * n + tl.arange(0, COLUMNS)
    inside = tl.arange(0, COLUMNS) < n
    if gain_parts is not None:
        store_rounded(gain_parts + at, tl.sum(gain_sum, 0), inside)
    if bias_parts is not None:
        store_rounded(bias_parts + at, tl.sum(bias_sum, 0), inside)


@triton.jit
def add_parts(
    gain_parts, gain_total, bias_parts, bias_total, count, n,
    A: tl.constexpr, PARTS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The sums of `count` parts of n, in an order that count alone decides."""
    if gain_parts is not None:
        _add_parts(gain_parts, gain_total, count, n, A, PARTS, COLUMNS)
    if bias_parts is not None:
        _add_parts(bias_parts, bias_total, count, n, A, PARTS, COLUMNS)


@triton.jit
def _add_parts(parts, total, count, n, A: tl.constexpr, PARTS: tl.constexpr, COLUMNS: tl.constexpr):
    col = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    which = tl.arange(0, PARTS)[:, None]
    sums = tl.zeros((PARTS, COLUMNS), A)
    for start in range(0, count, PARTS):
        mask = (start + which < count) & (col < n)
        sums += tl.load(parts + (start + which).to(tl.int64) * n + col, mask, other=0.0)
    to = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    store_rounded(total + to, tl.sum(sums, 0), to < n)
