"""Row norms in Triton, of rows that the registers of one program can't hold: several programs share a row.

Each takes the same COLUMNS of many rows, a slab of each. It measures its slab and tells the others through
memory; when it knows what all have measured it reads the slab again, still in the processor's own cache,
and finishes it. Meanwhile it has measured its slab of LEAD rows more, so that it seldom waits: memory is read
once. Programs that wait for each other must all be running: where a launch can't have that, one measures
(MEASURE) and a second one finishes (FINISH).

What is measured goes into `words`, (rows, numbers, slabs), by its bits, all of which are set in a word
that is still to come: as a number that is none, which what is made of it can't be mistaken for. There are
SLABS slabs at most, a power of two, and a program's threads at the least: a word is read by one of them, and
its sum with others is what all know, so that all go on or wait together. A `group` of programs shares a row,
of which there are `groups`. The formulas, and what A, CENTRED, OUTSIDE, OFFSET and `statistics` stand for,
are `row_norm_kernels`'.
"""

from __future__ import annotations

import triton
import triton.language as tl

from normkit.kernels.triton.arithmetic import (
    inverse,
    most_and_sum,
    rounded,
    scale_for,
    store_rounded,
    sum_both,
    two_sum,
)
from normkit.kernels.triton.row_norm_kernels import (
    affine,
    gain_of,
    keep_statistics,
    normalized,
    rstd_and_slope,
    saved,
    sound,
)


@triton.jit
def _columns(slab, n, COLUMNS: tl.constexpr, FULL: tl.constexpr):
    """A slab's columns, and which of them there are: all where n is a multiple of COLUMNS."""
    col = slab * COLUMNS + tl.arange(0, COLUMNS)
    inside = tl.full((COLUMNS,), True, tl.int1)
    if not FULL:
        inside = col < n
    return col, inside


@triton.jit
def _tell(to, v):
    """Store a number for other programs, not as a word that is still to come: of NaNs there are many."""
    v = tl.where(v == v, v, float("nan"))
    tl.store(to, v.to(to.dtype.element_ty, bitcast=True))


@triton.jit
def _heard(at, there, A: tl.constexpr):
    """What others have told, or have not yet."""
    return tl.load(at, there, other=0, volatile=True).to(A, bitcast=True)


@triton.jit
def _wait(at, numbers, slabs, there):
    """Until all slabs have told all numbers of a row."""
    for number in range(numbers):
        word = at + number * slabs
        while tl.sum((tl.load(word, there, other=0, volatile=True) == -1).to(tl.int32), 0) > 0:
            pass


@triton.jit
def _measure(v, words, row, inside, slab, slabs, terms, beside, A: tl.constexpr, CENTRED: tl.constexpr):
    """The inverse of a slab's scale, squared distances from its mean in that scale, and mean in two numbers.

    v: the slab, of `terms` elements.
    """
    v = v.to(A)
    share = inverse(tl.full((), 1.0, A) * terms)
    back = share * 0.0 + 1.0
    shift, excess = share * 0.0, share * 0.0
    if CENTRED:
        shift = rounded(tl.sum(v, 0) * share, share > 0)
        d = tl.where(inside, v - shift, 0.0)
        total, squares = sum_both(d, d * d, 0)
        excess = total * share
        squares -= total * excess
    else:
        squares = tl.sum(v * v, 0)
    # A mean that is far out may be of equal numbers, with nothing to square before slabs are compared.
    if (sound(excess, squares, terms, beside, CENTRED) & (shift * shift < 1e30)) == 0:
        scale, back = scale_for(tl.max(tl.abs(v), 0), beside)
        u = v * scale
        if CENTRED:
            shift = rounded(tl.sum(u, 0) * share, share > 0)
            u = tl.where(inside, u - shift, 0.0)
            excess = tl.sum(u, 0) * share
            u = tl.where(inside, u - excess, 0.0)
        squares = tl.sum(u * u, 0)
    to = words + row * 4 * slabs + slab
    _tell(to, back)
    _tell(to + slabs, squares)
    if CENTRED:
        mean, lost = two_sum(shift, excess)
        _tell(to + 2 * slabs, mean * back)
        _tell(to + 3 * slabs, lost * back)


@triton.jit
def _joined(at, there, slab, n, slabs, A: tl.constexpr, CENTRED: tl.constexpr, COLUMNS: tl.constexpr):
    """Scale, its inverse, origin, mean less that, and sum of squares, of a row; NaN where one is to come."""
    own = _heard(at, there, A)  # powers of two, and mostly 1
    squares = _heard(at + slabs, there, A)
    if CENTRED:
        means = _heard(at + 2 * slabs, there, A)
        lost = _heard(at + 3 * slabs, there, A)
        back, origin = most_and_sum(own, tl.where(slab == 0, means, 0.0), 0)
        scale = inverse(back)
        origin *= scale
        terms = tl.where(there, tl.minimum(n - slab * COLUMNS, COLUMNS), 0).to(A)
        apart = (means * scale - origin) + lost * scale
        mean = tl.sum(apart * terms, 0) * inverse(n + scale * 0.0)
        squares = squares * (scale * own) * (scale * own) + terms * (apart - mean) * (apart - mean)
    else:
        back = tl.max(own, 0)
        scale = inverse(back)
        origin, mean = scale * 0.0, scale * 0.0
        squares = squares * (scale * own) * (scale * own)
    return scale, back, origin, mean, tl.sum(squares, 0)


@triton.jit
def _finish(
    x, y, gain, bias, statistics, words, row, x_stride, col, inside, own_slab, rows, n, slabs, eps, offset,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
    COLUMNS: tl.constexpr, SLABS: tl.constexpr,
):  # fmt: skip
    """Finish a slab, and of a row its statistics."""
    slab = tl.arange(0, SLABS)
    there = slab < slabs
    at = words + row * 4 * slabs + slab
    v = tl.load(x + row * x_stride + col, inside, other=0.0).to(A)
    scale, back, origin, mean, squares = _joined(at, there, slab, n, slabs, A, CENTRED, COLUMNS)
    if mean + squares != mean + squares:
        _wait(at, 4 if CENTRED else 2, slabs, there)
        scale, back, origin, mean, squares = _joined(at, there, slab, n, slabs, A, CENTRED, COLUMNS)
    scaled_rstd, rstd, slope = rstd_and_slope(squares * inverse(scale * 0.0 + n), scale, eps, OUTSIDE)
    x_hat = (v * scale) * scaled_rstd
    if CENTRED:
        x_hat = (v * scale - origin) * scaled_rstd - mean * scaled_rstd
    store_rounded(y + row * n + col, affine(x_hat, gain, bias, col, inside, offset, A, OFFSET, FULL), inside)
    if statistics is not None:
        once = own_slab == 0
        keep_statistics(statistics, row, rows, once, back, origin, mean, rstd, slope, CENTRED, OUTSIDE)


@triton.jit
def forward(
    x, y, gain, bias, statistics, words, rows, n, slabs, groups, x_stride,
    eps_high, eps_low, offset_high, offset_low,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
    COLUMNS: tl.constexpr, SLABS: tl.constexpr,
    MEASURE: tl.constexpr, FINISH: tl.constexpr, LEAD: tl.constexpr,
):  # fmt: skip
    """Rows of n, y = x_hat * (offset + gain) + bias, dense; statistics where they are kept."""
    program = tl.program_id(0)
    slab = (program % slabs).to(tl.int64)
    group = (program // slabs).to(tl.int64)
    col, inside = _columns(slab, n, COLUMNS, FULL)
    terms = tl.minimum(n - slab * COLUMNS, COLUMNS)
    one = tl.full((), 1.0, A)
    eps = one * eps_high + one * eps_low
    offset = one * offset_high + one * offset_low
    beside = eps * eps if OUTSIDE else eps
    lead = LEAD * groups if FINISH else 0
    if MEASURE:
        for row in range(group, tl.minimum(group + lead, rows), groups):
            v = tl.load(x + row * x_stride + col, inside, other=0.0)
            _measure(v, words, row, inside, slab, slabs, terms, beside, A, CENTRED)
    for row in range(group, rows, groups):
        ahead = row + lead
        if MEASURE:  # which is on its way while the other is finished
            v = tl.load(x + ahead * x_stride + col, inside & (ahead + 0 * col < rows), other=0.0)
        if FINISH:
            _finish(
                x, y, gain, bias, statistics, words, row, x_stride, col, inside, slab, rows, n, slabs,
                eps, offset, A, CENTRED, OUTSIDE, OFFSET, FULL, COLUMNS, SLABS,
            )  # fmt: skip
        if MEASURE:  # noqa: SIM102 - a constant, and what a launch is given
            if ahead < rows:
                _measure(v, words, ahead, inside, slab, slabs, terms, beside, A, CENTRED)


@triton.jit
def _normalized(
    v, statistics, row, inside, slab, slabs, rows,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """x_hat, rstd and slope of a slab."""
    rstd, mean, residual, slope = saved(statistics, row, rows, slab < slabs, CENTRED, OUTSIDE)
    return normalized(v.to(A), inside, rstd, mean, residual, CENTRED, FULL), rstd, slope


@triton.jit
def _weighted(g, gain, col, inside, offset, A: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr):
    """Gradients times the gain, which is read anew for each row: registers are short."""
    if gain is not None:
        g = g * gain_of(gain, col, inside, offset, A, OFFSET, FULL)
    return g


@triton.jit
def _measure_gradient(
    g, v, statistics, gain, words, row, col, inside, slab, slabs, rows, offset,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """The sums of gain * grad_y * x_hat and of gain * grad_y over a slab."""
    x_hat, _, _ = _normalized(v, statistics, row, inside, slab, slabs, rows, A, CENTRED, OUTSIDE, FULL)
    g = g.to(A)
    gw = _weighted(g, gain, col, inside, offset, A, OFFSET, FULL)
    to = words + row * 2 * slabs + slab
    if CENTRED:
        product, total = sum_both(gw * x_hat, gw, 0)
        _tell(to, product)
        _tell(to + slabs, total)
    else:
        _tell(to, tl.sum(gw * x_hat, 0))


@triton.jit
def _joined_gradient(at, there, slabs, A: tl.constexpr, CENTRED: tl.constexpr):
    """These sums over a row; NaN where one is to come."""
    products = _heard(at, there, A)
    if CENTRED:
        return sum_both(products, _heard(at + slabs, there, A), 0)
    else:
        product = tl.sum(products, 0)
        return product, 0.0 * product


@triton.jit
def backward(
    grad_y, x, statistics, gain, grad_x, gain_parts, bias_parts, words, rows, n, slabs, groups, count,
    grad_stride, x_stride, offset_high, offset_low,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
    COLUMNS: tl.constexpr, SLABS: tl.constexpr,
    MEASURE: tl.constexpr, FINISH: tl.constexpr, LEAD: tl.constexpr,
):  # fmt: skip
    """grad_x, and `count` partial sums of gain's and bias's gradients, each of every count-th row."""
    program = tl.program_id(0)
    slab = (program % slabs).to(tl.int64)
    group = (program // slabs).to(tl.int64)
    col, inside = _columns(slab, n, COLUMNS, FULL)
    each_slab = tl.arange(0, SLABS)
    there = each_slab < slabs
    one = tl.full((), 1.0, A)
    offset = one * offset_high + one * offset_low
    share = inverse(one * n)
    lead = LEAD * count if FINISH else 0
    for part in range(group, count, groups):
        gain_sum = tl.zeros((COLUMNS,), A)
        bias_sum = tl.zeros((COLUMNS,), A)
        if MEASURE:
            for row in range(part, tl.minimum(part + lead, rows), count):
                v = tl.load(x + row * x_stride + col, inside, other=0.0)
                g = tl.load(grad_y + row * grad_stride + col, inside, other=0.0)
                _measure_gradient(
                    g, v, statistics, gain, words, row, col, inside, slab, slabs, rows, offset,
                    A, CENTRED, OUTSIDE, OFFSET, FULL,
                )  # fmt: skip
        for row in range(part, rows, count):
            ahead = row + lead
            if MEASURE:  # which is on its way while the other is finished
                mask = inside & (ahead + 0 * col < rows)
                next_v = tl.load(x + ahead * x_stride + col, mask, other=0.0)
                next_g = tl.load(grad_y + ahead * grad_stride + col, mask, other=0.0)
            if FINISH:
                v = tl.load(x + row * x_stride + col, inside, other=0.0)
                g = tl.load(grad_y + row * grad_stride + col, inside, other=0.0).to(A)
                x_hat, rstd, slope = _normalized(
                    v, statistics, row, inside, slab, slabs, rows, A, CENTRED, OUTSIDE, FULL
                )  # fmt: skip
                if gain_parts is not None:
                    gain_sum += g * x_hat
                if bias_parts is not None:
                    bias_sum += g
                if grad_x is not None:
                    at = words + row * 2 * slabs + each_slab
                    product, total = _joined_gradient(at, there, slabs, A, CENTRED)
                    if product + total != product + total:
                        _wait(at, 2 if CENTRED else 1, slabs, there)
                        product, total = _joined_gradient(at, there, slabs, A, CENTRED)
                    d = _weighted(g, gain, col, inside, offset, A, OFFSET, FULL)
                    d = (d - x_hat * (product * share * slope)) - total * share
                    store_rounded(grad_x + row * n + col, d * rstd, inside)
            if MEASURE:  # noqa: SIM102 - likewise
                if ahead < rows:
                    _measure_gradient(
                        next_g, next_v, statistics, gain, words, ahead, col, inside, slab, slabs, rows,
                        offset, A, CENTRED, OUTSIDE, OFFSET, FULL,
                    )  # fmt: skip
        if FINISH:
            if gain_parts is not None:
                store_rounded(gain_parts + part * n + col, gain_sum, inside)
            if bias_parts is not None:
                store_rounded(bias_parts + part * n + col, bias_sum, inside)
