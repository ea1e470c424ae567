"""Row norms in Triton: LayerNorm and RMSNorm, forward and backward, of rows that registers hold.

A program takes ROWS rows of COLUMNS elements or fewer, which stay in registers between their statistics
and their results. A is the accumulation dtype. `statistics` is that of the C++ core, (k, rows): rstd;
mean and residual where centred; slope where eps stands outside the root.
"""

from __future__ import annotations

import triton
import triton.language as tl

from normkit.kernels.triton.arithmetic import (
    by_fours,
    inverse,
    inverse_root,
    root,
    rounded,
    scale_for,
    store_rounded,
    sum_both,
    two_sum,
    widened,
)


@triton.jit
def _only(d, inside, FULL: tl.constexpr):
    """What there is of a row, and zeros; all of it where FULL."""
    if FULL:
        return d
    else:
        return tl.where(inside, d, 0.0)


@triton.jit
def moments(v, inside, share, CENTRED: tl.constexpr, FULL: tl.constexpr):
    """Of each row: a number near its mean, distances from that, the mean less it, and squared distances' sum.

    inside: which of the columns there are; all where FULL. share: 1 / their number.
    """
    if CENTRED:
        shift = rounded(tl.sum(v, 1, keep_dims=True) * share, share > 0)
        d = _only(v - shift, inside, FULL)
        # What is chosen is not fused with a sum over threads, of which each would get another rounding.
        total, squares = sum_both(by_fours(d), by_fours(_only(d * d, inside, FULL)), 1, KEEP=True)
        excess = total * share
        return shift, d, excess, squares - total * excess
    else:
        squares = tl.sum(by_fours(_only(v * v, inside, FULL)), 1, keep_dims=True)
        return tl.zeros_like(squares), v, tl.zeros_like(squares), squares


@triton.jit
def sound(excess, squares, n, beside, most, CENTRED: tl.constexpr):
    """Whether these sums can be relied on: in range, and no more than `most` of them cancelled.

    What is not a number can't.
    """
    if squares.dtype == tl.float32:
        good = (squares < 1e30) & ((squares > 1e-20) | (beside > 1e-30))
    else:
        good = (squares < 1e300) & ((squares > 1e-200) | (beside > 1e-250))
    if CENTRED:
        good = good & (excess * excess * n <= most * squares)
    return good


@triton.jit
def careful_moments(v, inside, share, beside, CENTRED: tl.constexpr, FULL: tl.constexpr):
    """The same of any row, of data that is scaled; scale and its inverse first."""
    scale, back = scale_for(tl.max(tl.abs(v), 1, keep_dims=True), beside)
    v *= scale
    shift = 0.0 * scale
    excess = shift
    if CENTRED:  # what is summed relative to about the mean does not cancel
        shift = rounded(tl.sum(v, 1, keep_dims=True) * share, share > 0)
        v = _only(v - shift, inside, FULL)
        excess = tl.sum(v, 1, keep_dims=True) * share
        d = _only(v - excess, inside, FULL)
        return scale, back, shift, v, excess, tl.sum(d * d, 1, keep_dims=True)
    else:
        return scale, back, shift, v, excess, tl.sum(v * v, 1, keep_dims=True)


@triton.jit
def rstd_and_slope(var, scale, eps, OUTSIDE: tl.constexpr):
    """1 / the deviation of data that was scaled, and of the data itself, and the slope."""
    if OUTSIDE:
        deviation = root(var)
        rstd = inverse(deviation + eps * scale)
        flat = inverse(0.0 * var + eps)
        slope = tl.where(deviation > 0, (deviation + eps * scale) * inverse(deviation), 0.0)
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
def parameter(p, col, inside, A: tl.constexpr, FULL: tl.constexpr):
    """A weight or a bias of some columns, all of which there are where FULL."""
    if FULL:
        return widened(tl.load(p + col), A)
    else:
        return widened(tl.load(p + col, inside, other=0.0), A)


@triton.jit
def gain_of(gain, col, inside, offset, A: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr):
    """What some columns are multiplied with: offset + gain."""
    g = parameter(gain, col, inside, A, FULL)
    if OFFSET:
        g += offset
    return g


@triton.jit
def affine(x_hat, gain, bias, col, inside, offset, A: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr):
    """x_hat * (offset + gain) + bias."""
    y = x_hat
    if gain is not None:
        y = y * gain_of(gain, col, inside, offset, A, OFFSET, FULL)
    if bias is not None:
        y = y + parameter(bias, col, inside, A, FULL)
    return y


@triton.jit
def _finish(
    v, x, y, gain, bias, statistics, row, end, col, inside, rows, n, x_stride, eps, offset,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Y and statistics of the rows before `end`, which are v."""
    mask = (row < end) if FULL else (row < end) & inside
    beside = eps * eps if OUTSIDE else eps
    share = inverse(0.0 * eps + n)
    shift, d, excess, squares = moments(v, inside, share, CENTRED, FULL)
    scale = tl.full((ROWS, 1), 1.0, A)
    back = scale
    bad = sound(excess, squares, n, beside, 1e-3, CENTRED) == 0
    if tl.max(tl.max(bad.to(tl.int32), 1), 0) > 0:
        if CENTRED:  # read again: what stays in registers meanwhile costs those who never come here
            v = tl.load(x + row * x_stride + col, mask, other=0.0).to(A)
        its_scale, its_back, its_shift, its_d, its_excess, its_squares = careful_moments(
            v, inside, share, beside, CENTRED, FULL
        )
        if ROWS == 1:
            scale, back, shift, d = its_scale, its_back, its_shift, its_d
            excess, squares = its_excess, its_squares
        else:  # rows that were right stay as they are: their bits must not depend on the rows beside them
            scale, back = tl.where(bad, its_scale, scale), tl.where(bad, its_back, back)
            shift, d = tl.where(bad, its_shift, shift), tl.where(bad, its_d, d)
            excess, squares = tl.where(bad, its_excess, excess), tl.where(bad, its_squares, squares)
    scaled_rstd, rstd, slope = rstd_and_slope(squares * share, scale, eps, OUTSIDE)
    x_hat = d * scaled_rstd
    if CENTRED:
        x_hat -= excess * scaled_rstd
    if statistics is not None:  # before the rest: what is stored leaves its registers
        keep_statistics(statistics, row, rows, row < end, back, shift, excess, rstd, slope, CENTRED, OUTSIDE)
    result = affine(x_hat, gain, bias, col, inside, offset, A, OFFSET, FULL)
    store_rounded(y + row * n + col, result, mask)


@triton.jit
def forward(
    x, y, gain, bias, statistics, rows, n, x_stride, eps_high, eps_low, offset_high, offset_low, rows_each,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """Rows of n, y = x_hat * (offset + gain) + bias, dense in y; statistics where they are kept.

    OFFSET: whether it is not zero. FULL: n is COLUMNS. AHEAD: whether a program takes several steps and reads
    the next one's rows before it finishes one's.
    """
    begin = tl.program_id(0).to(tl.int64) * rows_each
    end = tl.minimum(begin + rows_each, rows)
    row = (begin + tl.arange(0, ROWS))[:, None]
    col = tl.arange(0, COLUMNS)[None, :]
    inside = col < n
    one = tl.full((1, 1), 1.0, A)
    offset = one * offset_high + one * offset_low
    eps = one * eps_high + one * eps_low
    v = tl.load(x + row * x_stride + col, (row < end) if FULL else (row < end) & inside, other=0.0)
    if AHEAD:
        for _ in range(begin, end, ROWS):
            there = row + ROWS < end
            following = tl.load(
                x + (row + ROWS) * x_stride + col, there if FULL else there & inside, other=0.0
            )  # fmt: skip
            _finish(
                v.to(A), x, y, gain, bias, statistics, row, end, col, inside, rows, n, x_stride, eps, offset,
                A, CENTRED, OUTSIDE, OFFSET, FULL, ROWS,
            )  # fmt: skip
            v = following
            row += ROWS
    else:
        _finish(
            v.to(A), x, y, gain, bias, statistics, row, end, col, inside, rows, n, x_stride, eps, offset,
            A, CENTRED, OUTSIDE, OFFSET, FULL, ROWS,
        )  # fmt: skip


@triton.jit
def _kept(at, there):
    if there is None:
        return tl.load(at)
    else:
        return tl.load(at, there, other=0.0)


@triton.jit
def saved(statistics, row, rows, there, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr):
    """rstd, mean, residual and slope of rows, as they were kept; zeros of rows that are not there.

    there: which of them are, or None for all.
    """
    rstd = _kept(statistics + row, there)
    mean, residual, slope = 0.0 * rstd, 0.0 * rstd, 1.0 + 0.0 * rstd
    if CENTRED:
        statistics += rows
        mean = _kept(statistics + row, there)
        statistics += rows
        residual = _kept(statistics + row, there)
    if OUTSIDE:
        slope = _kept(statistics + rows + row, there)
    return rstd, mean, residual, slope


@triton.jit
def normalized(x, inside, rstd, mean, residual, CENTRED: tl.constexpr, FULL: tl.constexpr):
    """x_hat; zero in columns that are not there."""
    if CENTRED:
        x_hat = (x - mean) * rstd - residual * rstd
        if FULL:
            return x_hat
        else:
            return tl.where(inside, x_hat, 0.0)
    else:
        return x * rstd


@triton.jit
def backward(
    grad_y, x, statistics, gain, grad_x, gain_parts, bias_parts, rows, n, grad_stride, x_stride,
    offset_high, offset_low, rows_each,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """grad_x of rows that stay in registers, and the sums of gain's and bias's gradients over rows_each."""
    program = tl.program_id(0).to(tl.int64)
    col = tl.arange(0, COLUMNS)[None, :]
    inside = col < n
    one = tl.full((1, 1), 1.0, A)
    offset = one * offset_high + one * offset_low
    share = inverse(one * n)
    gains = one
    if gain is not None:
        gains = gain_of(gain, col, inside, offset, A, OFFSET, FULL)
    gain_sum = tl.zeros((ROWS, COLUMNS), A)
    bias_sum = tl.zeros((ROWS, COLUMNS), A)
    begin = program * rows_each
    end = tl.minimum(begin + rows_each, rows)
    for start in tl.range(begin, end, ROWS, num_stages=STAGES):
        row = (start + tl.arange(0, ROWS))[:, None]
        mask = (row < end) if FULL else (row < end) & inside
        v = tl.load(x + row * x_stride + col, mask, other=0.0).to(A)
        g = tl.load(grad_y + row * grad_stride + col, mask, other=0.0).to(A)
        rstd, mean, residual, slope = saved(statistics, row, rows, row < end, CENTRED, OUTSIDE)
        x_hat = normalized(v, inside, rstd, mean, residual, CENTRED, FULL)
        if gain_parts is not None:
            gain_sum += g * x_hat
        if bias_parts is not None:
            bias_sum += g
        if grad_x is not None:
            gw = g * gains
            if CENTRED:
                product, total = sum_both(gw * x_hat, gw, 1, KEEP=True)
                d = (gw - x_hat * (product * share * slope)) - total * share
            else:
                d = gw - x_hat * (tl.sum(gw * x_hat, 1, keep_dims=True) * share * slope)
            store_rounded(grad_x + row * n + col, d * rstd, mask)
    at = program * n + tl.arange(0, COLUMNS)
    there = tl.arange(0, COLUMNS) < n
    if gain_parts is not None:
        store_rounded(gain_parts + at, tl.sum(gain_sum, 0), there)
    if bias_parts is not None:
        store_rounded(bias_parts + at, tl.sum(bias_sum, 0), there)


@triton.jit
def add_parts(
    gain_parts, gain_total, bias_parts, bias_total, count, n,
    A: tl.constexpr, PARTS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The sums of `count` parts of n, in an order that count alone decides. Half the programs take bias's."""
    if tl.program_id(1) == 0:
        if gain_parts is not None:
            _add_parts(gain_parts, gain_total, count, n, A, PARTS, COLUMNS)
    else:
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
