"""Row norms in Triton: LayerNorm and RMSNorm, forward and backward.

A program takes ROWS rows at a time, COLUMNS of them at a step. HELD: a step is a whole row, which stays in
registers between its statistics and its result; else it is read again, from the second-level cache if
it is still there. A is the accumulation dtype. `statistics` is that of the C++ core, (k, rows): rstd;
mean and residual where centred; slope where eps stands outside the root.
"""

from __future__ import annotations

import triton
import triton.language as tl

from normkit.kernels.triton.arithmetic import inverse, inverse_root, joined, scale_for, store_rounded


@triton.jit
def _moments(x, shift, mask, share, CENTRED: tl.constexpr):
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
def _rstd(var, scale, eps, OUTSIDE: tl.constexpr):
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
def _keep(
    statistics, row, rows, back, shift, mean, rstd, slope, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr
):
    mask = row < rows
    tl.store(statistics + row, rstd, mask)
    if CENTRED:
        # The exact sum of shift and mean in two parts, by Knuth's two-sum.
        total = shift + mean
        tail = total - shift
        lost = (shift - (total - tail)) + (mean - tail)
        statistics += rows
        tl.store(statistics + row, total * back, mask)
        statistics += rows
        tl.store(statistics + row, lost * back, mask)
    if OUTSIDE:
        tl.store(statistics + rows + row, slope, mask)


@triton.jit
def _affine(x_hat, gain, bias, col, mask, offset, A: tl.constexpr):
    y = x_hat
    if gain is not None:
        y = y * (tl.load(gain + col, mask, other=0.0).to(A) + offset)
    if bias is not None:
        y = y + tl.load(bias + col, mask, other=0.0).to(A)
    return y


@triton.jit
def forward(
    x, y, gain, bias, statistics, rows, n, x_stride, eps_high, eps_low, offset_high, offset_low,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, HELD: tl.constexpr,
):  # fmt: skip
    """Rows of n, y = x_hat * (offset + gain) + bias, dense in y; statistics where they are kept."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    col = tl.arange(0, COLUMNS)[None, :]
    there = row < rows
    one = tl.full((1, 1), 1.0, A)
    offset = one * offset_high + one * offset_low
    eps = one * eps_high + one * eps_low
    share = inverse(one * n)
    x += row * x_stride
    y += row * n
    beside = eps * eps if OUTSIDE else eps
    shift = tl.zeros((ROWS, 1), A)  # about the mean: what is summed relative to it does not cancel
    if HELD:
        mask = there & (col < n)
        v = tl.load(x + col, mask, other=0.0).to(A)
        scale, back = scale_for(tl.max(tl.abs(v), 1, keep_dims=True), beside)
        v *= scale
        if CENTRED:
            shift = tl.sum(v * share, 1, keep_dims=True)
        d, mean, squares = _moments(v, shift, mask, share, CENTRED)
        scaled_rstd, rstd, slope = _rstd(squares * share, scale, eps, OUTSIDE)
        store_rounded(y + col, _affine(d * scaled_rstd, gain, bias, col, col < n, offset, A), mask)
    else:
        most = tl.zeros((ROWS, 1), A)
        for begin in range(0, n, COLUMNS):
            at = begin + col
            v = tl.load(x + at, there & (at < n), other=0.0).to(A)
            most = tl.maximum(most, tl.max(tl.abs(v), 1, keep_dims=True))
            if CENTRED:
                shift += tl.sum(v * share, 1, keep_dims=True)
        scale, back = scale_for(most, beside)
        shift *= scale
        so_far = tl.zeros((ROWS, 1), A)
        mean, squares = so_far, so_far
        for begin in range(0, n, COLUMNS):
            at = begin + col
            mask = there & (at < n)
            v = tl.load(x + at, mask, other=0.0).to(A) * scale
            part = one * tl.minimum(n - begin, COLUMNS)
            _, part_mean, part_squares = _moments(v, shift, mask, inverse(part), CENTRED)
            so_far, mean, squares = joined(so_far, mean, squares, part, part_mean, part_squares)
        scaled_rstd, rstd, slope = _rstd(squares * share, scale, eps, OUTSIDE)
        for begin in range(0, n, COLUMNS):
            at = begin + col
            mask = there & (at < n)
            v = tl.load(x + at, mask, other=0.0).to(A) * scale
            d = (v - shift) - mean if CENTRED else v
            store_rounded(y + at, _affine(d * scaled_rstd, gain, bias, at, at < n, offset, A), mask)
    if statistics is not None:
        _keep(statistics, row, rows, back, shift, mean, rstd, slope, CENTRED, OUTSIDE)


@triton.jit
def _saved(statistics, row, rows, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr):
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
def _x_hat(x, mask, rstd, mean, residual, CENTRED: tl.constexpr):
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
        rstd, mean, residual, slope = _saved(statistics, row, rows, CENTRED, OUTSIDE)
        x_hat = _x_hat(v, mask, rstd, mean, residual, CENTRED)
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
        tl.store(gain_parts + at, tl.sum(gain_sum, 0), inside)
    if bias_parts is not None:
        tl.store(bias_parts + at, tl.sum(bias_sum, 0), inside)


@triton.jit
def _weighted(grad_y, gain, col, mask, offset, A: tl.constexpr):
    gw = tl.load(grad_y + col, mask, other=0.0).to(A)
    if gain is not None:
        gw *= tl.load(gain + col, mask, other=0.0).to(A) + offset
    return gw


@triton.jit
def backward_in_steps(
    grad_y, x, statistics, gain, grad_x, rows, n, grad_stride, x_stride, offset_high, offset_low,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """grad_x of a row that registers do not hold: once for its sums, once for its gradient."""
    row = tl.program_id(0).to(tl.int64)
    one = tl.full((1,), 1.0, A)
    offset = one * offset_high + one * offset_low
    share = inverse(one * n)
    rstd, mean, residual, slope = _saved(statistics, row, rows, CENTRED, OUTSIDE)
    x += row * x_stride
    grad_y += row * grad_stride
    products = tl.zeros((COLUMNS,), A)
    sums = tl.zeros((COLUMNS,), A)
    for begin in range(0, n, COLUMNS):
        at = begin + tl.arange(0, COLUMNS)
        mask = at < n
        x_hat = _x_hat(tl.load(x + at, mask, other=0.0).to(A), mask, rstd, mean, residual, CENTRED)
        gw = _weighted(grad_y, gain, at, mask, offset, A)
        products += gw * x_hat
        sums += gw
    pull = tl.sum(products, 0) * share * slope
    level = tl.sum(sums, 0) * share
    for begin in range(0, n, COLUMNS):
        at = begin + tl.arange(0, COLUMNS)
        mask = at < n
        x_hat = _x_hat(tl.load(x + at, mask, other=0.0).to(A), mask, rstd, mean, residual, CENTRED)
        gw = _weighted(grad_y, gain, at, mask, offset, A)
        d = gw - x_hat * pull
        if CENTRED:
            d -= level
        store_rounded(grad_x + row * n + at, d * rstd, mask)


@triton.jit
def parameter_sums(
    grad_y, x, statistics, gain_parts, bias_parts, rows, n, grad_stride, x_stride, rows_each,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The sums of gain's and bias's gradients over rows_each rows, of COLUMNS columns a program."""
    part = tl.program_id(1).to(tl.int64)
    col = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    mask = col < n
    gain_sum = tl.zeros((COLUMNS,), A)
    bias_sum = tl.zeros((COLUMNS,), A)
    begin = part * rows_each
    for row in range(begin, tl.minimum(begin + rows_each, rows)):
        g = tl.load(grad_y + row * grad_stride + col, mask, other=0.0).to(A)
        if gain_parts is not None:
            rstd, mean, residual, _ = _saved(statistics, row, rows, CENTRED, OUTSIDE)
            v = tl.load(x + row * x_stride + col, mask, other=0.0).to(A)
            gain_sum += g * _x_hat(v, mask, rstd, mean, residual, CENTRED)
        bias_sum += g
    if gain_parts is not None:
        tl.store(gain_parts + part * n + col, gain_sum, mask)
    if bias_parts is not None:
        tl.store(bias_parts + part * n + col, bias_sum, mask)


@triton.jit
def add_parts(parts, total, count, n, A: tl.constexpr, PARTS: tl.constexpr, COLUMNS: tl.constexpr):
    """The sum of `count` parts of n, in an order that count alone decides."""
    col = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    which = tl.arange(0, PARTS)[:, None]
    sums = tl.zeros((PARTS, COLUMNS), A)
    for start in range(0, count, PARTS):
        mask = (start + which < count) & (col < n)
        sums += tl.load(parts + (start + which).to(tl.int64) * n + col, mask, other=0.0)
    to = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    store_rounded(total + to, tl.sum(sums, 0), to < n)
