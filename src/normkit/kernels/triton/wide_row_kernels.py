"""Row norms in Triton, of rows that the registers of one program can't hold: several programs share a row.

Each takes the same COLUMNS of many rows, a slab of each. It measures its slab, tells the others (`slabs`) and
finishes it when it knows what all have measured. All that it needs it asks for a turn before. In a turn it

- asks for the data of a row, which the turn before has had brought from memory to the second cache,
- measures the row that it asked for in the turn before, and tells the others,
- finishes the row that it measured LEAD turns ago, by what the others had told of it in the turn before.

Rows stay in registers from the first to the last, and memory is read once. Programs that wait for each other
must all be running: where a launch can't have that, there are two, `measure` and `finish`.

There are SLABS slabs at most, a power of two, and a program's threads at the least: a word is read by one of
them, and its sum with others is what all know, so that all go on or wait together. A group of programs shares
a row; there are `groups`. The formulas, and what A, CENTRED, OUTSIDE, OFFSET and `statistics` stand for, are
`row_norm_kernels`'; the gradients are in `wide_row_gradients`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from normkit.kernels.triton.arithmetic import (
    by_fours,
    inverse,
    of_two,
    rounded,
    scale_for,
    store_rounded,
    sum_both,
    two_sum,
    widened,
)
from normkit.kernels.triton.row_norm_kernels import affine, keep_statistics, rstd_and_slope, sound
from normkit.kernels.triton.slabs import (
    as_it_lies,
    asked,
    columns,
    heard,
    heard_both,
    numbers_of,
    place,
    prefetch,
    tell,
    wait,
)

# Of a row's squared distances from its origin, how many times their sum about the mean may be due to that.
OF_A_ROW = tl.constexpr(0.3)
# The least number that `scale_for` makes 1, by accumulation dtype.
LEAST_32, LEAST_64 = tl.constexpr(2.0**-100), tl.constexpr(2.0**-900)
# The furthest mean, in standard deviations, that 16-bit numbers are scaled before it is subtracted from them.
NEAR = tl.constexpr(4.0)


@triton.jit
def _sample(row, n, CENTRED: tl.constexpr):
    """Eight times eight neighbours from all over a row, whose mean is its origin: near the row's own, mostly.

    Each eight lies further on by eights than the one before: rows may repeat themselves. In two halves, of
    which each warp has all: none waits for others to add them up.
    """
    if CENTRED:
        which = tl.arange(0, 32)
        return _eights(row, which // 8, which % 8, n), _eights(row, which // 8 + 4, which % 8, n)
    else:
        return 0, 0


@triton.jit
def _eights(row, run, place, n):
    return tl.load(row + tl.minimum(run * (n // 8) + 4 * run * (run + 1) + place, n - 1))


@triton.jit
def _origin(sample, A: tl.constexpr):
    return tl.sum(widened(sample[0], A) + widened(sample[1], A), 0) * 0.015625


@triton.jit
def _measure(
    v, sample, zero, to, there, slabs, inside, A: tl.constexpr, CENTRED: tl.constexpr, FULL: tl.constexpr
):  # fmt: skip
    """Tell the sum of a slab's squared distances from the row's origin and, where centred, of distances.

    Returns the origin. zero: what has to be known first.
    """
    if CENTRED:
        origin = _origin(sample, A) + zero
        d = v - origin
        if not FULL:
            d = tl.where(inside, d, 0.0)
        squares, total = sum_both(by_fours(d * d), by_fours(d), 0)
        tell(to + slabs, total, there)
    else:
        origin = tl.zeros((), A)
        squares = tl.sum(by_fours(v * v), 0)
    tell(to, squares, there)
    return origin


@triton.jit
def _measure_carefully(x, to, slabs, inside, terms, beside, A: tl.constexpr, CENTRED: tl.constexpr):
    """Tell, of any slab, squared distances from its own mean, in a scale, the scale's inverse and, where
    centred, that mean in two numbers. x: where it lies; it has `terms` elements.
    """
    v = widened(tl.load(x, inside, other=0.0), A)
    most = tl.max(tl.abs(v), 0)
    scale, back = scale_for(most, beside)
    least = LEAST_32 if v.dtype == tl.float32 else LEAST_64
    v *= scale
    if CENTRED:
        share = inverse(tl.full((), 1.0, A) * terms)
        shift = rounded(tl.sum(v, 0) * share, share > 0)
        v = tl.where(inside, v - shift, 0.0)
        excess = tl.sum(v, 0) * share
        v = tl.where(inside, v - excess, 0.0)
        mean, lost = two_sum(shift, excess)
        tell(to + 2 * slabs, mean * back, True)
        tell(to + 3 * slabs, lost * back, True)
    tell(to, tl.sum(v * v, 0), True)
    tell(to + slabs, tl.where(most == 0, least, back), True)  # zeros have any scale


@triton.jit
def _joined(squares, total, share, CENTRED: tl.constexpr):
    """Of what slabs have told, a row's mean less its origin, and the sum of squared distances from the mean.

    Not a number where one of them is still to come.
    """
    if CENTRED:
        squares, total = sum_both(squares, total, 0)
        mean = total * share
        return mean, squares - total * mean
    else:
        squares = tl.sum(squares, 0)
        return 0.0 * squares, squares


@triton.jit
def _joined_carefully(careful, first, there, terms, slabs, share, A: tl.constexpr, CENTRED: tl.constexpr):
    """Of any row a scale and its inverse, and in that scale its first slab's mean, its mean less that, and
    squared distances' sum. careful, first: where all have told of it, and the first.
    """
    wait(careful, there, slabs, 4 if CENTRED else 2)
    own = heard(careful + slabs, there, A)
    back = tl.max(own, 0)
    scale = inverse(back)
    own = scale * own  # a power of two
    squares = heard(careful, there, A) * own * own
    origin, mean = scale * 0.0, scale * 0.0
    if CENTRED:
        origin = scale * heard(first + 2 * slabs, True, A)
        means = careful + 2 * slabs
        apart = (scale * heard(means, there, A) - origin) + scale * heard(means + slabs, there, A)
        apart = tl.where(there, apart, 0.0)
        mean = tl.sum(terms * apart, 0) * share
        squares += tl.where(there, terms * (apart - mean) * (apart - mean), 0.0)
    return scale, back, origin, mean, tl.sum(squares, 0)


@triton.jit
def _known(
    squares, total, origin, x, of_row, own_slab, slab, there, terms, own_terms, inside, n, slabs, share,
    beside, A: tl.constexpr, CENTRED: tl.constexpr, WAITING: tl.constexpr,
):  # fmt: skip
    """Of a row, when all slabs have told: scale and its inverse, origin, mean less that, squared distances'
    sum. squares, total: what they have told so far. x: where the own slab lies.

    They must not depend on when that was: not a number is also what is still to come.
    """
    scale, back = share * 0.0 + 1.0, share * 0.0 + 1.0
    mean, squares = _joined(squares, total, share, CENTRED)
    if sound(mean, squares, n, beside, OF_A_ROW, CENTRED) == 0:
        wait(of_row + slab, there, slabs, 2 if CENTRED else 1)
        told, told_total = heard_both(of_row + slab, there, slabs, A, CENTRED)
        mean, squares = _joined(told, told_total, share, CENTRED)
        if sound(mean, squares, n, beside, OF_A_ROW, CENTRED) == 0:
            of_row += (2 if CENTRED else 1) * slabs
            if WAITING:  # else that has been done; the others of the group come here too
                _measure_carefully(x, of_row + own_slab, slabs, inside, own_terms, beside, A, CENTRED)
            scale, back, origin, mean, squares = _joined_carefully(
                of_row + slab, of_row, there, terms, slabs, share, A, CENTRED
            )  # fmt: skip
    return scale, back, origin, mean, squares


@triton.jit
def _centred(v, scale, origin, mean, scaled_rstd):
    """x_hat of a row whose mean, scaled, is origin + mean."""
    return (v * scale - origin) * scaled_rstd - mean * scaled_rstd


@triton.jit
def _finish(
    v, own_x, scale, back, origin, mean, squares, y, gain, bias, statistics, row, rows, n, once, col, inside,
    share, eps, offset,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """A slab's y, and statistics `once`. y, gain, bias: where the first row's begins. own_x: where v is."""
    scaled_rstd, rstd, slope = rstd_and_slope(squares * share, scale, eps, OUTSIDE)
    if statistics is not None:  # before the rest: what is stored leaves its registers
        keep_statistics(statistics, row, rows, once, back, origin, mean, rstd, slope, CENTRED, OUTSIDE)
    y += tl.cast(row, tl.int64) * n + col
    x_hat = (v * scale) * scaled_rstd
    if CENTRED:
        x_hat = _centred(v, scale, origin, mean, scaled_rstd)
    at_once: tl.constexpr = CENTRED and FULL and own_x.dtype.element_ty.primitive_bitwidth == 16
    away = (origin + mean) * scaled_rstd
    if at_once:  # an instruction less for each element
        x_hat = v * scaled_rstd - away
    store_rounded(y, affine(x_hat, gain, bias, col, inside, offset, A, OFFSET, FULL), inside)
    if at_once:
        # Not near enough where the mean is far, eps outweighs the distances from it, or the row is scaled.
        spread = squares * share * scaled_rstd * scaled_rstd
        if ((tl.abs(away) <= NEAR) & (spread >= 0.5) & (scale == 1)) == 0:
            v = widened(tl.load(own_x, inside, other=0.0), A)
            x_hat = _centred(v, scale, origin, mean, scaled_rstd)
            store_rounded(y, affine(x_hat, gain, bias, col, inside, offset, A, OFFSET, FULL), inside)


@triton.jit
def forward(
    x, y, gain, bias, statistics, words, rows, n, slabs, groups, x_stride,
    eps_high, eps_low, offset_high, offset_low,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
    COLUMNS: tl.constexpr, SLABS: tl.constexpr, NUMBERS: tl.constexpr, PAIRS: tl.constexpr,
    LEAD: tl.constexpr, PREFETCH: tl.constexpr,
):  # fmt: skip
    """Rows of n, y = x_hat * (offset + gain) + bias, dense; statistics where they are kept.

    PREFETCH: whether a row's data is also asked for a turn before, from memory: sm_90's instructions do it.
    """
    group, own_slab, begin, own_terms, slab, there, terms = place(n, slabs, A, FULL, COLUMNS, SLABS)
    col, inside = columns(own_terms, COLUMNS, FULL)
    share = inverse(tl.full((), 1.0, A) * n)
    eps, offset = of_two(eps_high, eps_low, A), of_two(offset_high, offset_low, A)
    beside = eps * eps if OUTSIDE else eps
    y += begin
    own_gain = gain if gain is None else gain + begin
    own_bias = bias if bias is None else bias + begin
    own_words = words + own_slab
    held, origins = (), ()
    for i in tl.static_range(LEAD + 1):
        early = group + i * groups
        early_at = tl.cast(tl.minimum(early, rows - 1), tl.int64)
        early_x = x + early_at * x_stride
        early_v = as_it_lies(early_x + begin, own_terms, COLUMNS, FULL, PAIRS)
        sample = _sample(early_x, n, CENTRED)
        held = held + (early_v,)  # noqa: RUF005 - Triton has no other way
        if i < LEAD:
            early_origin = _measure(
                numbers_of(early_v, x, A, PAIRS), sample, 0.0, own_words + early_at * NUMBERS * slabs,
                early < rows, slabs, inside, A, CENTRED, FULL,
            )  # fmt: skip
            origins = origins + (early_origin,)  # noqa: RUF005
    of_row = words + tl.cast(group, tl.int64) * NUMBERS * slabs
    squares, total = heard_both(of_row + slab, there, slabs, A, CENTRED)
    for row in range(group, rows, groups):
        next_at = tl.cast(tl.minimum(row + (LEAD + 1) * groups, rows - 1), tl.int64)
        next_x = x + next_at * x_stride
        if PREFETCH:
            soon = tl.cast(tl.minimum(row + (LEAD + 2) * groups, rows - 1), tl.int64)
            prefetch(x + soon * x_stride + begin, own_terms)
        next_v = as_it_lies(next_x + begin, own_terms, COLUMNS, FULL, PAIRS)
        next_sample = _sample(next_x, n, CENTRED)
        zero = 0.0
        if CENTRED and PREFETCH:
            zero = asked().to(A)
        else:
            tl.debug_barrier()  # or the assembler asks for them when it has waited for the others
        ready = row + LEAD * groups
        ready_at = tl.cast(tl.minimum(ready, rows - 1), tl.int64)
        origin = _measure(
            numbers_of(held[LEAD], x, A, PAIRS), sample, zero, own_words + ready_at * NUMBERS * slabs,
            ready < rows, slabs, inside, A, CENTRED, FULL,
        )  # fmt: skip
        own_x = x + tl.cast(row, tl.int64) * x_stride + begin + col
        of_row = words + tl.cast(row, tl.int64) * NUMBERS * slabs
        scale, back, its_origin, mean, its_squares = _known(
            squares, total, origins[0], own_x, of_row, own_slab, slab, there, terms, own_terms, inside,
            n, slabs, share, beside, A, CENTRED, True,
        )  # fmt: skip
        tl.debug_barrier()
        following = tl.cast(tl.minimum(row + groups, rows - 1), tl.int64)
        of_following = words + following * NUMBERS * slabs + slab
        if LEAD > 1:
            squares, total = heard_both(of_following, there, slabs, A, CENTRED)
        _finish(
            numbers_of(held[0], x, A, PAIRS), own_x, scale, back, its_origin, mean, its_squares, y,
            own_gain, own_bias, statistics, row, rows, n, own_slab == 0, col, inside, share, eps, offset,
            A, CENTRED, OUTSIDE, OFFSET, FULL,
        )  # fmt: skip
        if LEAD == 1:  # others measure it only now: a while later
            squares, total = heard_both(of_following, there, slabs, A, CENTRED)
        held = held[1:] + (next_v,)  # noqa: RUF005
        origins = origins[1:] + (origin,)  # noqa: RUF005
        sample = next_sample


@triton.jit
def measure(
    x, y, gain, bias, statistics, words, rows, n, slabs, groups, x_stride,
    eps_high, eps_low, offset_high, offset_low,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, FULL: tl.constexpr,
    COLUMNS: tl.constexpr, SLABS: tl.constexpr, NUMBERS: tl.constexpr,
):  # fmt: skip
    """Tell all of one slab of one row, a group's."""
    row, own_slab, begin, own_terms, _, _, _ = place(n, slabs, A, FULL, COLUMNS, SLABS)
    col, inside = columns(own_terms, COLUMNS, FULL)
    eps = of_two(eps_high, eps_low, A)
    beside = eps * eps if OUTSIDE else eps
    row_x = x + tl.cast(row, tl.int64) * x_stride
    v = widened(tl.load(row_x + begin + col, inside, other=0.0), A)
    to = words + own_slab + tl.cast(row, tl.int64) * NUMBERS * slabs
    _measure(v, _sample(row_x, n, CENTRED), 0.0, to, True, slabs, inside, A, CENTRED, FULL)
    to += (2 if CENTRED else 1) * slabs
    _measure_carefully(row_x + begin + col, to, slabs, inside, own_terms, beside, A, CENTRED)


@triton.jit
def finish(
    x, y, gain, bias, statistics, words, rows, n, slabs, groups, x_stride,
    eps_high, eps_low, offset_high, offset_low,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
    COLUMNS: tl.constexpr, SLABS: tl.constexpr, NUMBERS: tl.constexpr,
):  # fmt: skip
    """Y of one slab of one row, a group's, of which all has been told."""
    row, own_slab, begin, own_terms, slab, there, terms = place(n, slabs, A, FULL, COLUMNS, SLABS)
    col, inside = columns(own_terms, COLUMNS, FULL)
    share = inverse(tl.full((), 1.0, A) * n)
    eps, offset = of_two(eps_high, eps_low, A), of_two(offset_high, offset_low, A)
    beside = eps * eps if OUTSIDE else eps
    row_x = x + tl.cast(row, tl.int64) * x_stride
    own_x = row_x + begin + col
    v = widened(tl.load(own_x, inside, other=0.0), A)
    origin = tl.zeros((), A)
    if CENTRED:
        origin = _origin(_sample(row_x, n, CENTRED), A)
    of_row = words + tl.cast(row, tl.int64) * NUMBERS * slabs
    squares, total = heard_both(of_row + slab, there, slabs, A, CENTRED)
    scale, back, origin, mean, squares = _known(
        squares, total, origin, own_x, of_row, own_slab, slab, there, terms, own_terms, inside,
        n, slabs, share, beside, A, CENTRED, False,
    )  # fmt: skip
    own_gain = gain if gain is None else gain + begin
    own_bias = bias if bias is None else bias + begin
    _finish(
        v, own_x, scale, back, origin, mean, squares, y + begin, own_gain, own_bias, statistics, row, rows, n,
        own_slab == 0, col, inside, share, eps, offset, A, CENTRED, OUTSIDE, OFFSET, FULL,
    )  # fmt: skip
