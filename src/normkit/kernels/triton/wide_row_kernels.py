"""Row norms in Triton, of rows that the registers of one program can't hold: several programs share a row.

Each takes the same COLUMNS of many rows, a slab of each. It measures its slab, tells the others (`slabs`) and
finishes it when it knows what all have measured. Meanwhile it has measured its slab of LEAD rows more, so
that it seldom waits; these stay in its registers, and memory is read once. Programs that wait for each other
must all be running: where a launch can't have that, one measures (MEASURE) and a second finishes (FINISH).

There are SLABS slabs at most, a power of two, and a program's threads at the least: a word is read by one of
them, and its sum with others is what all know, so that all go on or wait together. A `group` of programs
shares a row, of which there are `groups`. The formulas, and what A, CENTRED, OUTSIDE, OFFSET and `statistics`
stand for, are `row_norm_kernels`'.
"""

from __future__ import annotations

import triton
import triton.language as tl

from normkit.kernels.triton.arithmetic import (
    by_fours,
    inverse,
    rounded,
    scale_for,
    store_rounded,
    sum_both,
    two_sum,
    widened,
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
from normkit.kernels.triton.slabs import as_it_lies, columns, heard, numbers_of, tell, wait

# Of a sum, what may cancel in the moments of a slab about its own mean, and of a row about its first slab's.
OF_A_SLAB, OF_A_ROW = tl.constexpr(1e-3), tl.constexpr(0.1)
# The least number that `scale_for` makes 1, by accumulation dtype.
LEAST_32, LEAST_64 = tl.constexpr(2.0**-100), tl.constexpr(2.0**-900)


@triton.jit
def _measure(
    v, x, to, there, slabs, inside, terms, beside, A: tl.constexpr, CENTRED: tl.constexpr, FULL: tl.constexpr
):  # fmt: skip
    """Tell squared distances from a slab's mean and, where centred, that mean in two numbers.

    Then these squares as they are in a scale, and its inverse: where that is not 1 there are no others.
    v: the slab, of `terms` elements, which lies at x.
    """
    share = inverse(tl.full((), 1.0, A) * terms)
    back = share * 0.0 + 1.0
    own_back = back
    shift, excess = share * 0.0, share * 0.0
    if CENTRED:
        shift = rounded(tl.sum(by_fours(v), 0) * share, share > 0)
        d = v - shift
        if not FULL:
            d = tl.where(inside, d, 0.0)
        total, squares = sum_both(by_fours(d), by_fours(d * d), 0)
        excess = total * share
        squares -= total * excess
    else:
        squares = tl.sum(by_fours(v * v), 0)
    # A mean that is far out may be of equal numbers, with nothing to square before slabs are compared.
    if (sound(excess, squares, terms, beside, OF_A_SLAB, CENTRED) & (shift * shift < 1e30)) == 0:
        u = widened(tl.load(x, inside, other=0.0), A)  # again: registers that hold it meanwhile cost everyone
        most = tl.max(tl.abs(u), 0)
        scale, back = scale_for(most, beside)
        least = LEAST_32 if u.dtype == tl.float32 else LEAST_64
        own_back = tl.where(most == 0, least, back)  # zeros have any scale
        u *= scale
        if CENTRED:
            shift = rounded(tl.sum(u, 0) * share, share > 0)
            u = tl.where(inside, u - shift, 0.0)
            excess = tl.sum(u, 0) * share
            u = tl.where(inside, u - excess, 0.0)
        squares = tl.sum(u * u, 0)
    tell(to, tl.where(back == 1, squares, float("nan")), there)
    if CENTRED:
        mean, lost = two_sum(shift, excess)
        to += slabs
        tell(to, mean * back, there)
        to += slabs
        tell(to, lost * back, there)
    tell(to + slabs, squares, there)
    tell(to + 2 * slabs, own_back, there)


@triton.jit
def _joined(of_row, slab, there, terms, slabs, share, A: tl.constexpr, CENTRED: tl.constexpr):
    """Of a row an origin, the mean less that, and squared distances' sum; NaN where a number is to come."""
    at = of_row + slab
    squares = heard(at, there, A)
    if CENTRED:
        origin = heard(of_row + slabs, True, A)  # the first slab's mean
        apart = (heard(at + slabs, there, A) - origin) + heard(at + 2 * slabs, there, A)
        # Each warp has asked for the origin at its own time: if one had no answer, the sums have to show it.
        apart = tl.where(there, apart, origin - origin)
        weighted = terms * apart
        total, squares = sum_both(weighted, squares + weighted * apart, 0)
        mean = total * share
        return origin, mean, squares - total * mean
    else:
        return share * 0.0, share * 0.0, tl.sum(squares, 0)


@triton.jit
def _joined_carefully(of_row, slab, there, terms, slabs, share, A: tl.constexpr, CENTRED: tl.constexpr):
    """Scale and its inverse, and the same in that scale, of any row whose means all have told."""
    careful = of_row + (3 if CENTRED else 1) * slabs + slab
    wait(careful, there, slabs, 2)
    own = heard(careful + slabs, there, A)
    back = tl.max(own, 0)
    scale = inverse(back)
    own = scale * own  # a power of two
    squares = heard(careful, there, A) * own * own
    origin, mean = scale * 0.0, scale * 0.0
    if CENTRED:
        at = of_row + slabs
        origin = scale * heard(at, True, A)
        at += slab
        apart = (scale * heard(at, there, A) - origin) + scale * heard(at + slabs, there, A)
        apart = tl.where(there, apart, 0.0)
        mean = tl.sum(terms * apart, 0) * share
        squares += tl.where(there, terms * (apart - mean) * (apart - mean), 0.0)
    return scale, back, origin, mean, tl.sum(squares, 0)


@triton.jit
def _known(
    of_row, slab, there, terms, n, slabs, share, beside, A: tl.constexpr, CENTRED: tl.constexpr
):  # fmt: skip
    """Scale and its inverse, origin, mean less that, and squared distances' sum, when all have told.

    They must not depend on when that was: not a number is also what is still to come.
    """
    scale, back = share * 0.0 + 1.0, share * 0.0 + 1.0
    origin, mean, squares = _joined(of_row, slab, there, terms, slabs, share, A, CENTRED)
    if sound(mean, squares, n, beside, OF_A_ROW, CENTRED) == 0:
        wait(of_row + slab, there, slabs, 3 if CENTRED else 1)
        origin, mean, squares = _joined(of_row, slab, there, terms, slabs, share, A, CENTRED)
        if sound(mean, squares, n, beside, OF_A_ROW, CENTRED) == 0:
            scale, back, origin, mean, squares = _joined_carefully(
                of_row, slab, there, terms, slabs, share, A, CENTRED
            )  # fmt: skip
    return scale, back, origin, mean, squares


@triton.jit
def forward(
    x, y, gain, bias, statistics, words, rows, n, slabs, groups, x_stride,
    eps_high, eps_low, offset_high, offset_low,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
    COLUMNS: tl.constexpr, SLABS: tl.constexpr, NUMBERS: tl.constexpr, PAIRS: tl.constexpr,
    MEASURE: tl.constexpr, FINISH: tl.constexpr, LEAD: tl.constexpr,
):  # fmt: skip
    """Rows of n, y = x_hat * (offset + gain) + bias, dense; statistics where they are kept."""
    program = tl.program_id(0)
    group = program // slabs
    own_slab = (program % slabs).to(tl.int64)
    begin = own_slab * COLUMNS
    slab = tl.arange(0, SLABS)
    there = slab < slabs
    one = tl.full((), 1.0, A)
    own_terms, terms = COLUMNS, one * COLUMNS
    if not FULL:
        own_terms = tl.minimum(n - begin, COLUMNS).to(tl.int32)
        terms = tl.where(there, tl.minimum(n - tl.cast(slab, n.dtype) * COLUMNS, COLUMNS), 0).to(A)
    col, inside = columns(begin, own_terms, COLUMNS, FULL)
    share = inverse(one * n)
    eps = one * eps_high + one * eps_low
    offset = one * offset_high + one * offset_low
    beside = eps * eps if OUTSIDE else eps
    own_words = words + own_slab
    held = ()
    if MEASURE and FINISH:
        for i in tl.static_range(LEAD):
            early = group + i * groups
            early_at = tl.cast(tl.minimum(early, rows - 1), tl.int64)
            early_x = x + early_at * x_stride
            early_v = as_it_lies(early_x, begin, own_terms, COLUMNS, FULL, PAIRS)
            _measure(
                numbers_of(early_v, x, A, PAIRS), early_x + col, own_words + early_at * NUMBERS * slabs,
                early < rows, slabs, inside, own_terms, beside, A, CENTRED, FULL,
            )  # fmt: skip
            held = held + (early_v,)  # noqa: RUF005 - Triton has no other way
    for row in range(group, rows, groups):
        at = tl.cast(row, tl.int64)
        ahead = row + LEAD * groups if FINISH else row
        next_at = tl.cast(tl.where(ahead < rows, ahead, row), tl.int64)  # the same, where there is none
        next_x = x + next_at * x_stride
        if FINISH:
            scale, back, origin, mean, squares = _known(
                words + at * NUMBERS * slabs, slab, there, terms, n, slabs, share, beside, A, CENTRED
            )  # fmt: skip
        if MEASURE:  # after the words: before them it took longer. Finishing leaves it time to arrive
            next_v = as_it_lies(next_x, begin, own_terms, COLUMNS, FULL, PAIRS)
        if FINISH:
            scaled_rstd, rstd, slope = rstd_and_slope(squares * share, scale, eps, OUTSIDE)
            if MEASURE:
                v = numbers_of(held[0], x, A, PAIRS)
            else:
                v = widened(tl.load(x + at * x_stride + col, inside, other=0.0), A)
            x_hat = (v * scale) * scaled_rstd
            if CENTRED:
                x_hat = (v * scale - origin) * scaled_rstd - mean * scaled_rstd
            result = affine(x_hat, gain, bias, col, inside, offset, A, OFFSET, FULL)
            store_rounded(y + at * n + col, result, inside)
            if statistics is not None:
                once = own_slab == 0
                keep_statistics(
                    statistics, row, rows, once, back, origin, mean, rstd, slope, CENTRED, OUTSIDE
                )  # fmt: skip
        if MEASURE:
            _measure(
                numbers_of(next_v, x, A, PAIRS), next_x + col, own_words + next_at * NUMBERS * slabs,
                ahead < rows, slabs, inside, own_terms, beside, A, CENTRED, FULL,
            )  # fmt: skip
            if FINISH:
                held = held[1:] + (next_v,)  # noqa: RUF005 - Triton has no other way


@triton.jit
def _weighted(g, gain, col, inside, offset, A: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr):
    """Gradients times the gain, which is read anew for each row: registers are short."""
    if gain is not None:
        g = g * gain_of(gain, col, inside, offset, A, OFFSET, FULL)
    return g


@triton.jit
def _measure_gradient(
    g, v, rstd, mean, residual, gain, to, there, col, inside, slabs, offset,
    A: tl.constexpr, CENTRED: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """Tell the sums of gain * grad_y * x_hat and, where centred, of gain * grad_y over a slab."""
    x_hat = normalized(v, inside, rstd, mean, residual, CENTRED, FULL)
    gw = _weighted(g, gain, col, inside, offset, A, OFFSET, FULL)
    if CENTRED:
        product, total = sum_both(by_fours(gw * x_hat), by_fours(gw), 0)
        tell(to, product, there)
        tell(to + slabs, total, there)
    else:
        tell(to, tl.sum(by_fours(gw * x_hat), 0), there)


@triton.jit
def _joined_gradient(of_row, slab, there, slabs, A: tl.constexpr, CENTRED: tl.constexpr):
    """These sums over a row; NaN where one is to come."""
    products = heard(of_row + slab, there, A)
    if CENTRED:
        return sum_both(products, heard(of_row + slabs + slab, there, A), 0)
    else:
        product = tl.sum(products, 0)
        return product, 0.0 * product


@triton.jit
def backward(
    grad_y, x, statistics, gain, grad_x, gain_parts, bias_parts, words, rows, n, slabs, first, count,
    grad_stride, x_stride, offset_high, offset_low,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
    COLUMNS: tl.constexpr, SLABS: tl.constexpr, NUMBERS: tl.constexpr, PAIRS: tl.constexpr,
    MEASURE: tl.constexpr, FINISH: tl.constexpr, LEAD: tl.constexpr,
):  # fmt: skip
    """grad_x, and from the `first` on partial sums of parameters' gradients, each of every count-th row."""
    program = tl.program_id(0)
    part = first + program // slabs
    own_slab = program % slabs
    begin = tl.cast(own_slab, n.dtype) * COLUMNS  # where rows begin from here on: registers are short
    x += begin
    grad_y += begin
    if gain is not None:
        gain += begin
    if grad_x is not None:
        grad_x += begin
    own_terms = COLUMNS
    if not FULL:
        own_terms = tl.minimum(n - begin, COLUMNS).to(tl.int32)
    col, inside = columns(0, own_terms, COLUMNS, FULL)
    slab = tl.arange(0, SLABS)
    there = slab < slabs
    one = tl.full((), 1.0, A)
    offset = one * offset_high + one * offset_low
    share = inverse(one * n)
    own_words = words + own_slab
    gain_sum = tl.zeros((COLUMNS,), A)
    bias_sum = tl.zeros((COLUMNS,), A)
    held = ()
    if MEASURE and FINISH:
        for i in tl.static_range(LEAD):
            early = part + i * count
            early_at = tl.cast(tl.minimum(early, rows - 1), tl.int64)
            early_x, early_gy = x + early_at * x_stride, grad_y + early_at * grad_stride
            early_v = as_it_lies(early_x, 0, own_terms, COLUMNS, FULL, PAIRS)
            early_g = as_it_lies(early_gy, 0, own_terms, COLUMNS, FULL, PAIRS)
            early_rstd, early_mean, early_residual, _ = saved(
                statistics, early_at, rows, None, CENTRED, OUTSIDE
            )  # fmt: skip
            _measure_gradient(
                numbers_of(early_g, x, A, PAIRS), numbers_of(early_v, x, A, PAIRS),
                early_rstd, early_mean, early_residual, gain, own_words + early_at * NUMBERS * slabs,
                early < rows, col, inside, slabs, offset, A, CENTRED, OFFSET, FULL,
            )  # fmt: skip
            held = held + (early_v, early_g)  # noqa: RUF005 - Triton has no other way
    for row in range(part, rows, count):
        at = tl.cast(row, tl.int64)
        ahead = row + LEAD * count if FINISH else row
        next_at = tl.cast(tl.where(ahead < rows, ahead, row), tl.int64)  # the same, where there is none
        if FINISH:
            rstd, mean, residual, slope = saved(statistics, at, rows, None, CENTRED, OUTSIDE)
            product, total = one * 0.0, one * 0.0
            if grad_x is not None:
                of_row = words + at * NUMBERS * slabs
                product, total = _joined_gradient(of_row, slab, there, slabs, A, CENTRED)
                if product + total != product + total:
                    wait(of_row + slab, there, slabs, NUMBERS)
                    product, total = _joined_gradient(of_row, slab, there, slabs, A, CENTRED)
            product, total = product * share * slope, total * share
        if MEASURE:  # as above
            next_x, next_gy = x + next_at * x_stride, grad_y + next_at * grad_stride
            next_v = as_it_lies(next_x, 0, own_terms, COLUMNS, FULL, PAIRS)
            next_g = as_it_lies(next_gy, 0, own_terms, COLUMNS, FULL, PAIRS)
            next_rstd, next_mean, next_residual, _ = saved(
                statistics, next_at, rows, None, CENTRED, OUTSIDE
            )  # fmt: skip
        if FINISH:
            if MEASURE:
                v = numbers_of(held[0], x, A, PAIRS)
                g = numbers_of(held[1], x, A, PAIRS)
            else:
                v = widened(tl.load(x + at * x_stride + col, inside, other=0.0), A)
                g = widened(tl.load(grad_y + at * grad_stride + col, inside, other=0.0), A)
            x_hat = normalized(v, inside, rstd, mean, residual, CENTRED, FULL)
            if grad_x is not None:
                d = _weighted(g, gain, col, inside, offset, A, OFFSET, FULL)
                d -= x_hat * product
                if CENTRED:
                    d -= total
                store_rounded(grad_x + at * n + col, d * rstd, inside)
            if gain_parts is not None:
                gain_sum += g * x_hat
            if bias_parts is not None:
                bias_sum += g
        if MEASURE:
            _measure_gradient(
                numbers_of(next_g, x, A, PAIRS), numbers_of(next_v, x, A, PAIRS),
                next_rstd, next_mean, next_residual, gain, own_words + next_at * NUMBERS * slabs,
                ahead < rows, col, inside, slabs, offset, A, CENTRED, OFFSET, FULL,
            )  # fmt: skip
            if FINISH:
                held = held[2:] + (next_v, next_g)  # noqa: RUF005 - Triton has no other way
    if FINISH:
        of_part = tl.cast(part, tl.int64) * n + begin + col
        if gain_parts is not None:
            store_rounded(gain_parts + of_part, gain_sum, inside)
        if bias_parts is not None:
            store_rounded(bias_parts + of_part, bias_sum, inside)
