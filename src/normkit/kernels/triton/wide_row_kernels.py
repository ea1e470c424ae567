"""Row norms of rows too wide for one program's registers, in two steps: measure its parts, then finish.

Memory is read once all the same: a launch measures some rows and finishes those that the launch before
measured, which are still in the last cache. A row's parts are slabs of COLUMNS; there are SLABS of them at
most, a power of two. What is measured of a slab goes into `parts`, (rows, numbers, slabs). The formulas, and
what A, CENTRED, OUTSIDE and `statistics` stand for, are `row_norm_kernels`'.
"""

from __future__ import annotations

import triton
import triton.language as tl

from normkit.kernels.triton.arithmetic import inverse, scale_for, store_rounded, two_sum
from normkit.kernels.triton.row_norm_kernels import (
    affine,
    keep_statistics,
    moments,
    normalized,
    rstd_and_slope,
    saved,
)

# Which rows a launch works on changes from one to the next; Triton need not compile for their divisors.
ROWS_OF_A_LAUNCH = ["first", "middle", "last"]


@triton.jit
def _slab_of(n, slab, A: tl.constexpr, COLUMNS: tl.constexpr):
    """A slab's columns, which of them there are, and 1 / their number."""
    col = slab * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return col, col < n, inverse(tl.full((1, 1), 1.0, A) * tl.minimum(n - slab * COLUMNS, COLUMNS))


@triton.jit
def _measure(
    x, parts, row, slab, n, slabs, beside, A: tl.constexpr, CENTRED: tl.constexpr, COLUMNS: tl.constexpr
):
    """Largest element, mean in two numbers, and squared distances from it in the slab's own scale."""
    col, mask, share = _slab_of(n, slab, A, COLUMNS)
    v = tl.load(x + col, mask, other=0.0).to(A)
    most = tl.max(tl.abs(v), 1, keep_dims=True)
    scale, back = scale_for(most, beside)
    v *= scale
    shift = 0.0 * most
    if CENTRED:
        shift = tl.sum(v * share, 1, keep_dims=True)
    _, mean, squares = moments(v, shift, mask, share, CENTRED)
    mean, lost = two_sum(shift, mean)
    to = parts + row * 4 * slabs + slab + tl.zeros((1, 1), tl.int64)
    tl.store(to, most)
    tl.store(to + slabs, squares)
    if CENTRED:
        tl.store(to + 2 * slabs, mean * back)
        tl.store(to + 3 * slabs, lost * back)


@triton.jit
def _joined(
    parts, row, n, slabs, beside,
    A: tl.constexpr, CENTRED: tl.constexpr, COLUMNS: tl.constexpr, SLABS: tl.constexpr,
):  # fmt: skip
    """Scale and its inverse, origin, mean less that, and sum of squares, of a whole row."""
    slab = tl.arange(0, SLABS)[None, :]
    there = slab < slabs
    parts += row * 4 * slabs + slab
    most = tl.load(parts, there, other=0.0)
    squares = tl.load(parts + slabs, there, other=0.0)
    scale, back = scale_for(tl.max(most, 1, keep_dims=True), beside)
    _, own = scale_for(most, beside)
    squares = squares * (own * scale) * (own * scale)
    origin = 0.0 * scale
    mean = origin
    if CENTRED:
        means = tl.load(parts + 2 * slabs, there, other=0.0) * scale
        lost = tl.load(parts + 3 * slabs, there, other=0.0) * scale
        terms = tl.where(there, tl.minimum(n - slab * COLUMNS, COLUMNS), 0).to(A)
        origin = tl.sum(tl.where(slab == 0, means, 0.0), 1, keep_dims=True)
        apart = (means - origin) + lost
        mean = tl.sum(apart * terms, 1, keep_dims=True) * inverse(n + 0.0 * scale)
        squares += terms * (apart - mean) * (apart - mean)
    return scale, back, origin, mean, tl.sum(squares, 1, keep_dims=True)


@triton.jit(do_not_specialize=ROWS_OF_A_LAUNCH)
def forward(
    x, y, gain, bias, statistics, parts, rows, n, slabs, x_stride, eps_high, eps_low, offset_high, offset_low,
    first, middle, last,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, COLUMNS: tl.constexpr, SLABS: tl.constexpr,
):  # fmt: skip
    """Finishes rows [first, middle), measured before, and measures [middle, last). Programs take turns."""
    program = tl.program_id(0)  # divided as an int32: for an int64 a GPU calls a subroutine
    slab = (program // 2 % slabs).to(tl.int64)
    which = (program // 2 // slabs).to(tl.int64)
    one = tl.full((1, 1), 1.0, A)
    eps = one * eps_high + one * eps_low
    beside = eps * eps if OUTSIDE else eps
    if program % 2 == 1:
        row = middle + which
        if row < last:
            _measure(x + row * x_stride, parts, row, slab, n, slabs, beside, A, CENTRED, COLUMNS)
    else:
        row = first + which
        if row < middle:
            scale, back, origin, mean, squares = _joined(
                parts, row, n, slabs, beside, A, CENTRED, COLUMNS, SLABS
            )
            var = squares * inverse(one * n)
            scaled_rstd, rstd, slope = rstd_and_slope(var, scale, eps, OUTSIDE)
            col, mask, _ = _slab_of(n, slab, A, COLUMNS)
            v = tl.load(x + row * x_stride + col, mask, other=0.0).to(A) * scale
            d = (v - origin) - mean if CENTRED else v
            offset = one * offset_high + one * offset_low
            result = affine(d * scaled_rstd, gain, bias, col, mask, offset, A)
            store_rounded(y + row * n + col, result, mask)
            if statistics is not None:
                at = row + tl.zeros((1, 1), tl.int64)
                once = slab + 0 * at == 0  # of all programs of the row one
                keep_statistics(
                    statistics, at, rows, once, back, origin, mean, rstd, slope, CENTRED, OUTSIDE
                )  # fmt: skip


@triton.jit
def _weighted(g, gain, col, mask, offset, A: tl.constexpr):
    """Gradients times the gain."""
    if gain is not None:
        g = g * (tl.load(gain + col, mask, other=0.0).to(A) + offset)
    return g


@triton.jit
def _measure_gradient(
    grad_y, x, statistics, gain, parts, row, slab, rows, n, slabs, offset,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The sums of gain * grad_y * x_hat and of gain * grad_y over a slab."""
    col, mask, _ = _slab_of(n, slab, A, COLUMNS)
    at = row + tl.zeros((1, 1), tl.int64)
    rstd, mean, residual, _ = saved(statistics, at, rows, CENTRED, OUTSIDE)
    x_hat = normalized(tl.load(x + col, mask, other=0.0).to(A), mask, rstd, mean, residual, CENTRED)
    gw = _weighted(tl.load(grad_y + col, mask, other=0.0).to(A), gain, col, mask, offset, A)
    to = parts + row * 2 * slabs + slab + tl.zeros((1, 1), tl.int64)
    tl.store(to, tl.sum(gw * x_hat, 1, keep_dims=True))
    if CENTRED:
        tl.store(to + slabs, tl.sum(gw, 1, keep_dims=True))


@triton.jit(do_not_specialize=[*ROWS_OF_A_LAUNCH, "bunch"])
def backward(
    grad_y, x, statistics, gain, grad_x, gain_parts, bias_parts, parts, rows, n, slabs, grad_stride, x_stride,
    offset_high, offset_low, first, middle, last, rows_each, bunch,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr,
    COLUMNS: tl.constexpr, SLABS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Finishes rows [first, middle), in tiles of ROWS x WIDTH, and measures [middle, last), in slabs.

    One program finishes some columns of rows_each rows, whose share of the parameters' gradients it sums;
    the next `bunch` measure.
    """
    program = tl.program_id(0)
    group = program // (bunch + 1)
    member = program % (bunch + 1)
    one = tl.full((1, 1), 1.0, A)
    offset = one * offset_high + one * offset_low
    if member > 0:
        task = group * bunch + member - 1
        row = middle + (task // slabs).to(tl.int64)
        slab = (task % slabs).to(tl.int64)
        if row < last:
            _measure_gradient(
                grad_y + row * grad_stride, x + row * x_stride, statistics, gain, parts, row, slab,
                rows, n, slabs, offset, A, CENTRED, OUTSIDE, COLUMNS,
            )  # fmt: skip
    else:
        tiles = tl.cdiv(n, WIDTH)
        start = first + (group // tiles).to(tl.int64) * rows_each
        left = (group % tiles).to(tl.int64) * WIDTH
        if start < middle:
            _finish_gradient(
                grad_y, x, statistics, gain, grad_x, gain_parts, bias_parts, parts,
                start, tl.minimum(start + rows_each, middle), left, start // rows_each,
                rows, n, slabs, grad_stride, x_stride, offset,
                A, CENTRED, OUTSIDE, SLABS, ROWS, WIDTH,
            )  # fmt: skip


@triton.jit
def _finish_gradient(
    grad_y, x, statistics, gain, grad_x, gain_parts, bias_parts, parts, start, end, left, part,
    rows, n, slabs, grad_stride, x_stride, offset,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr,
    SLABS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    col = left + tl.arange(0, WIDTH)[None, :]
    slab = tl.arange(0, SLABS)[None, :]
    share = inverse(0.0 * offset + n)
    gain_sum = tl.zeros((ROWS, WIDTH), A)
    bias_sum = tl.zeros((ROWS, WIDTH), A)
    inside = col < n
    for begin in range(start, end, ROWS):
        row = (begin + tl.arange(0, ROWS))[:, None]
        mask = (row < end) & inside
        g = tl.load(grad_y + row * grad_stride + col, mask, other=0.0).to(A)
        row = tl.minimum(row, end - 1)  # past the end g is zero: what it meets may be another row's
        v = tl.load(x + row * x_stride + col, inside, other=0.0).to(A)
        rstd, mean, residual, slope = saved(statistics, row, rows, CENTRED, OUTSIDE)
        x_hat = normalized(v, inside, rstd, mean, residual, CENTRED)
        if gain_parts is not None:
            gain_sum += g * x_hat
        if bias_parts is not None:
            bias_sum += g
        if grad_x is not None:
            measured = parts + row * 2 * slabs + slab
            pull = tl.sum(tl.load(measured, slab < slabs, other=0.0), 1, keep_dims=True) * share * slope
            d = _weighted(g, gain, col, inside, offset, A) - x_hat * pull
            if CENTRED:
                level = tl.sum(tl.load(measured + slabs, slab < slabs, other=0.0), 1, keep_dims=True)
                d -= level * share
            store_rounded(grad_x + row * n + col, d * rstd, mask)
    at = part * n + left + tl.arange(0, WIDTH)
    there = left + tl.arange(0, WIDTH) < n
    if gain_parts is not None:
        store_rounded(gain_parts + at, tl.sum(gain_sum, 0), there)
    if bias_parts is not None:
        store_rounded(bias_parts + at, tl.sum(bias_sum, 0), there)
