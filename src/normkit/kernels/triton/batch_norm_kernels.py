"""BatchNorm in Triton: moments, application, sums of the gradient, gradient.

Data is a matrix of `outer` rows. PLANAR: one for each sample and channel, of the channel's positions,
rows of a sample channel_stride apart; a program serves one channel. Else: one for each position, of
the channels. Sums over a share of the rows are partial and joined in their order, so that bits
depend on the shape alone. `statistics` is that of the C++ core, (4, channels): rstd, mean, residual,
biased variance. A is the accumulation dtype.
"""

from __future__ import annotations

import triton
import triton.language as tl

from normkit.kernels.triton.arithmetic import (
    inverse,
    inverse_root,
    rounded,
    scale_for,
    store_rounded,
    two_sum,
)


@triton.jit
def _sum(v, PLANAR: tl.constexpr):
    """Over what a channel has of a tile."""
    rows = tl.sum(v, 0, keep_dims=True)
    return tl.sum(rows, 1, keep_dims=True) if PLANAR else rows


@triton.jit
def _place(channels, inner, PLANAR: tl.constexpr, COLUMNS: tl.constexpr):
    """The program's channels, its columns [left, right), and its part of the rows."""
    program = tl.program_id(0)  # divided as an int32: for an int64 a GPU calls a subroutine
    if PLANAR:
        channel = (program % channels).to(tl.int64)
        return channel + tl.zeros((1, 1), tl.int64), 0, inner, (program // channels).to(tl.int64)
    else:
        tiles = tl.cdiv(channels, COLUMNS)
        left = (program % tiles).to(tl.int64) * COLUMNS
        return (
            left + tl.arange(0, COLUMNS)[None, :],
            left,
            tl.minimum(left + COLUMNS, inner),
            (program // tiles).to(tl.int64),
        )


@triton.jit
def _number(numbers, channel, there, otherwise, A: tl.constexpr):
    """One for each channel; the same for all where there are none."""
    if numbers is None:
        return tl.full((1, 1), otherwise, A)
    else:
        return tl.load(numbers + channel, there, other=0.0).to(A)


@triton.jit
def _saved(statistics, channel, channels, there):
    rstd = tl.load(statistics + channel, there, other=0.0)
    mean = tl.load(statistics + channels + channel, there, other=0.0)
    residual = tl.load(statistics + channels + channels + channel, there, other=0.0)
    return rstd, mean, residual


@triton.jit
def _terms(rows, columns, A: tl.constexpr, PLANAR: tl.constexpr):
    """How many elements a channel has of a tile."""
    return tl.zeros((1, 1), A) + rows * (columns if PLANAR else 1)


@triton.jit
def _most(v, PLANAR: tl.constexpr):
    """The largest of what a channel has of a tile."""
    rows = tl.max(tl.abs(v), 0, keep_dims=True)
    return tl.max(rows, 1, keep_dims=True) if PLANAR else rows


@triton.jit
def _sums(
    x, scale, origin, begin, end, left, right, outer_stride,
    A: tl.constexpr, PLANAR: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of rows [begin, end): each channel's sums of x * scale - origin, and of its square."""
    total = tl.zeros((ROWS, COLUMNS), A)
    squares = tl.zeros((ROWS, COLUMNS), A)
    for start in range(begin, end, ROWS):
        row = (start + tl.arange(0, ROWS))[:, None]
        for at in range(left, right, COLUMNS):
            col = at + tl.arange(0, COLUMNS)[None, :]
            mask = (row < end) & (col < right)
            v = tl.load(x + row * outer_stride + col, mask, other=0.0).to(A)
            d = tl.where(mask, v * scale - origin, 0.0)
            total += d
            squares += d * d
    return _sum(total, PLANAR), _sum(squares, PLANAR)


@triton.jit
def moments(
    x, origins, means, squares, units, channels, outer, inner, outer_stride, channel_stride, outer_each, eps,
    A: tl.constexpr, PLANAR: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of a share of the rows: each channel's mean less its origin, and the squared distances' sum, in a unit.

    The origin is the mean of the channel's first tile, whatever the share, lest sums cancel; where they do
    after all, the share is read again about its own mean. The unit is that tile's too: 1 but for data whose
    squares A can't hold.
    """
    channel, left, right, part = _place(channels, inner, PLANAR, COLUMNS)
    there = channel < channels
    x += channel * channel_stride if PLANAR else 0
    row = tl.arange(0, ROWS).to(tl.int64)[:, None]
    col = left + tl.arange(0, COLUMNS)[None, :]
    first = tl.load(x + row * outer_stride + col, (row < outer) & (col < right), other=0.0).to(A)
    terms = _terms(tl.minimum(outer, ROWS), tl.minimum(right - left, COLUMNS), A, PLANAR)
    scale, unit = scale_for(_most(first, PLANAR), tl.zeros((1, 1), A) + eps)
    origin = rounded(_sum(first * scale, PLANAR) * inverse(terms), terms > 0)
    once = there & (0 * channel + part == 0)
    tl.store(origins + channel, origin, once)
    tl.store(units + channel, unit, once)
    begin = part * outer_each
    end = tl.minimum(begin + outer_each, outer)
    total, square = _sums(x, scale, origin, begin, end, left, right, outer_stride, A, PLANAR, ROWS, COLUMNS)
    share = inverse(_terms(end - begin, right - left, A, PLANAR))
    mean = total * share
    cancelled = total * mean
    square -= cancelled
    doubtful = there & ((cancelled <= 16 * square) == 0)
    if tl.max(tl.max(doubtful.to(tl.int32), 1), 0) > 0:
        near = origin + mean
        total, square = _sums(x, scale, near, begin, end, left, right, outer_stride, A, PLANAR, ROWS, COLUMNS)
        rest = total * share
        square -= total * rest
        mean = (near - origin) + rest
    tl.store(means + part * channels + channel, mean, there)
    tl.store(squares + part * channels + channel, square, there)


@triton.jit
def _elements(part, each, outer, terms):
    """How many elements of a channel are in a part, in float64: none in those past the last."""
    return tl.minimum(each, tl.maximum(outer - part * each, 0)).to(tl.float64) * terms


@triton.jit
def conclude(
    origins, means, squares, units, statistics, channels, parts, outer, each, terms, eps_high, eps_low,
    A: tl.constexpr, PARTS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """From partial moments, of `each` rows with `terms` elements of a channel in each, to statistics.

    Chan, Golub & LeVeque (1983), "Algorithms for computing the sample variance", for all parts at once.
    """
    channel = (tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    there = channel < channels
    which = tl.arange(0, PARTS).to(tl.int64)[:, None]
    # In float64, and rounded once: there is little to do for a channel.
    one = tl.full((1, 1), 1.0, tl.float64)
    share = inverse(one * outer * terms)
    mean = tl.zeros((1, COLUMNS), tl.float64)
    for start in range(0, parts, PARTS):
        part = start + which
        m = tl.load(means + part * channels + channel, there & (part < parts), other=0.0).to(tl.float64)
        mean += tl.sum(m * _elements(part, each, outer, terms), 0, keep_dims=True)
    mean *= share
    square = tl.zeros((1, COLUMNS), tl.float64)
    for start in range(0, parts, PARTS):
        part = start + which
        at, mask = part * channels + channel, there & (part < parts)
        apart = tl.load(means + at, mask, other=0.0).to(tl.float64) - mean
        within = tl.load(squares + at, mask, other=0.0).to(tl.float64)
        square += tl.sum(within + apart * apart * _elements(part, each, outer, terms), 0, keep_dims=True)
    unit = tl.load(units + channel, there, other=1.0).to(tl.float64)
    first = tl.load(origins + channel, there, other=0.0).to(tl.float64) * unit
    mean *= unit
    var = square * share * unit * unit
    rstd = inverse_root(var + (one * eps_high + one * eps_low))
    tl.store(statistics + channel, rstd.to(A), there)
    total, lost = two_sum(first, mean)
    rounded = total.to(A)
    tl.store(statistics + channels + channel, rounded, there)
    tl.store(statistics + 2 * channels + channel, ((total - rounded.to(tl.float64)) + lost).to(A), there)
    tl.store(statistics + 3 * channels + channel, var.to(A), there)


@triton.jit
def given(
    running_mean, running_var, statistics, channels, eps_high, eps_low, A: tl.constexpr, COLUMNS: tl.constexpr
):
    """Statistics of constants."""
    channel = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    there = channel < channels
    var = tl.load(running_var + channel, there, other=1.0).to(A)
    eps = tl.full((1,), 0.0, A) + eps_high + eps_low
    tl.store(statistics + channel, inverse_root(var + eps), there)
    tl.store(statistics + channels + channel, tl.load(running_mean + channel, there, other=0.0).to(A), there)
    tl.store(statistics + 2 * channels + channel, 0.0 * var, there)
    tl.store(statistics + 3 * channels + channel, var, there)


@triton.jit
def apply(
    x, y, statistics, weight, bias, channels, outer, inner, x_stride, x_channel, y_stride, y_channel,
    A: tl.constexpr, PLANAR: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of ROWS rows, y = (x - mean) * rstd * weight + bias."""
    channel, left, right, part = _place(channels, inner, PLANAR, COLUMNS)
    there = channel < channels
    rstd, mean, residual = _saved(statistics, channel, channels, there)
    _apply(
        x, y, rstd, mean, residual, weight, bias, channel, left, right, part, there, outer,
        x_stride, x_channel, y_stride, y_channel, A, PLANAR, ROWS, COLUMNS,
    )  # fmt: skip


@triton.jit
def infer(
    x, y, running_mean, running_var, weight, bias, channels, outer, inner,
    x_stride, x_channel, y_stride, y_channel, eps_high, eps_low,
    A: tl.constexpr, PLANAR: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The same with given statistics, in one launch."""
    channel, left, right, part = _place(channels, inner, PLANAR, COLUMNS)
    there = channel < channels
    var = tl.load(running_var + channel, there, other=1.0).to(A)
    rstd = inverse_root(var + (tl.full((1, 1), 0.0, A) + eps_high + eps_low))
    mean = tl.load(running_mean + channel, there, other=0.0).to(A)
    _apply(
        x, y, rstd, mean, tl.full((1, 1), 0.0, A), weight, bias, channel, left, right, part, there, outer,
        x_stride, x_channel, y_stride, y_channel, A, PLANAR, ROWS, COLUMNS,
    )  # fmt: skip


@triton.jit
def _apply(
    x, y, rstd, mean, residual, weight, bias, channel, left, right, part, there, outer,
    x_stride, x_channel, y_stride, y_channel,
    A: tl.constexpr, PLANAR: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    scale = rstd * _number(weight, channel, there, 1.0, A)
    shift = _number(bias, channel, there, 0.0, A)
    row = (part * ROWS + tl.arange(0, ROWS))[:, None]
    x += row * x_stride + (channel * x_channel if PLANAR else 0)
    y += row * y_stride + (channel * y_channel if PLANAR else 0)
    for at in range(left, right, COLUMNS):
        col = at + tl.arange(0, COLUMNS)[None, :]
        mask = (row < outer) & (col < right)
        v = tl.load(x + col, mask, other=0.0).to(A)
        store_rounded(y + col, ((v - mean) - residual) * scale + shift, mask)


@triton.jit
def gradient_sums(
    grad_y, x, statistics, sums, products, channels, outer, inner, g_stride, g_channel, x_stride, x_channel,
    outer_each,
    A: tl.constexpr, PLANAR: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of a share of the rows: the sums of grad_y and of grad_y * x_hat of each channel."""
    channel, left, right, part = _place(channels, inner, PLANAR, COLUMNS)
    there = channel < channels
    rstd, mean, residual = _saved(statistics, channel, channels, there)
    begin = part * outer_each
    end = tl.minimum(begin + outer_each, outer)
    x += channel * x_channel if PLANAR else 0
    grad_y += channel * g_channel if PLANAR else 0
    total = tl.zeros((ROWS, COLUMNS), A)
    product = tl.zeros((ROWS, COLUMNS), A)
    for start in range(begin, end, ROWS):
        row = (start + tl.arange(0, ROWS))[:, None]
        for at in range(left, right, COLUMNS):
            col = at + tl.arange(0, COLUMNS)[None, :]
            mask = (row < end) & (col < right)
            g = tl.load(grad_y + row * g_stride + col, mask, other=0.0).to(A)
            v = tl.load(x + row * x_stride + col, mask, other=0.0).to(A)
            total += g
            product += g * tl.where(mask, ((v - mean) - residual) * rstd, 0.0)
    tl.store(sums + part * channels + channel, _sum(total, PLANAR), there)
    tl.store(products + part * channels + channel, _sum(product, PLANAR), there)


@triton.jit
def gradient(
    grad_y, x, grad_x, statistics, weight, sums, products, channels, outer, inner,
    g_stride, g_channel, x_stride, x_channel, to_stride, to_channel, inverse_high, inverse_low,
    A: tl.constexpr, PLANAR: tl.constexpr, TRAINING: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of ROWS rows, grad_x = weight * rstd * (grad_y - mean(grad_y) - x_hat * mean(grad_y * x_hat)).

    Where the statistics are constants, weight * rstd * grad_y.
    """
    channel, left, right, part = _place(channels, inner, PLANAR, COLUMNS)
    there = channel < channels
    rstd, mean, residual = _saved(statistics, channel, channels, there)
    scale = rstd * _number(weight, channel, there, 1.0, A)
    if TRAINING:
        share = tl.full((1, 1), 0.0, A) + inverse_high + inverse_low
        level = tl.load(sums + channel, there, other=0.0) * share
        pull = tl.load(products + channel, there, other=0.0) * share
    row = (part * ROWS + tl.arange(0, ROWS))[:, None]
    x += row * x_stride + (channel * x_channel if PLANAR else 0)
    grad_y += row * g_stride + (channel * g_channel if PLANAR else 0)
    grad_x += row * to_stride + (channel * to_channel if PLANAR else 0)
    for at in range(left, right, COLUMNS):
        col = at + tl.arange(0, COLUMNS)[None, :]
        mask = (row < outer) & (col < right)
        d = tl.load(grad_y + col, mask, other=0.0).to(A)
        if TRAINING:
            v = tl.load(x + col, mask, other=0.0).to(A)
            d = d - level - ((v - mean) - residual) * rstd * pull
        store_rounded(grad_x + col, d * scale, mask)
