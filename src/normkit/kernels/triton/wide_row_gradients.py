"""Gradients of row norms in Triton, of rows that several programs share: `wide_row_kernels` says how."""

from __future__ import annotations

import triton
import triton.language as tl

from normkit.kernels.triton.arithmetic import by_fours, inverse, of_two, store_rounded, sum_both, widened
from normkit.kernels.triton.row_norm_kernels import gain_of, normalized
from normkit.kernels.triton.slabs import (
    as_it_lies,
    columns,
    heard_both,
    numbers_of,
    place,
    prefetch,
    tell,
    wait,
)


@triton.jit
def _weighted(g, gain, col, inside, offset, A: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr):
    """Gradients times the gain, which is read anew for each row: registers are short."""
    if gain is not None:
        g = g * gain_of(gain, col, inside, offset, A, OFFSET, FULL)
    return g


@triton.jit
def _kept(statistics, row, rows, CENTRED: tl.constexpr):
    """A row's rstd and, where centred, mean and residual."""
    rstd = tl.load(statistics + row)
    if CENTRED:
        return rstd, tl.load(statistics + rows + row), tl.load(statistics + rows + (rows + row))
    else:
        return rstd, 0, 0


@triton.jit
def _slab_of(
    row, x, grad_y, statistics, rows, x_stride, grad_stride, there,
    CENTRED: tl.constexpr, FULL: tl.constexpr, COLUMNS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """A slab of a row and of its gradient, as they lie, and what was kept of the row."""
    v = as_it_lies(x + row * x_stride, there, COLUMNS, FULL, PAIRS)
    g = as_it_lies(grad_y + row * grad_stride, there, COLUMNS, FULL, PAIRS)
    return v, g, _kept(statistics, row, rows, CENTRED)


@triton.jit
def _measure(
    g, v, kept, gain, to, there, col, inside, slabs, offset,
    A: tl.constexpr, CENTRED: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """Tell the sums of gain * grad_y * x_hat and, where centred, of gain * grad_y over a slab."""
    x_hat = normalized(v, inside, kept[0], kept[1], kept[2], CENTRED, FULL)
    gw = _weighted(g, gain, col, inside, offset, A, OFFSET, FULL)
    if CENTRED:
        product, total = sum_both(by_fours(gw * x_hat), by_fours(gw), 0)
        tell(to + slabs, total, there)
    else:
        product = tl.sum(by_fours(gw * x_hat), 0)
    tell(to, product, there)


@triton.jit
def _joined(product, total, CENTRED: tl.constexpr):
    """These sums over a row, of what slabs have told; not a number where one is still to come."""
    if CENTRED:
        return sum_both(product, total, 0)
    else:
        product = tl.sum(product, 0)
        return product, 0.0 * product


@triton.jit
def _known(product, total, of_row, there, slabs, A: tl.constexpr, CENTRED: tl.constexpr):
    """Likewise, when all have told."""
    product, total = _joined(product, total, CENTRED)
    if product + total != product + total:
        wait(of_row, there, slabs, 2 if CENTRED else 1)
        products, totals = heard_both(of_row, there, slabs, A, CENTRED)
        product, total = _joined(products, totals, CENTRED)
    return product, total


@triton.jit
def _finish(
    g, v, kept, product, total, statistics, row, rows, n, gain, grad_x, col, inside, share, offset,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """A slab's grad_x, where it is wanted, and x_hat."""
    rstd = kept[0]
    x_hat = normalized(v, inside, rstd, kept[1], kept[2], CENTRED, FULL)
    if grad_x is not None:
        if OUTSIDE:
            product *= tl.load(statistics + (3 if CENTRED else 1) * rows + row)
        away = x_hat * (product * share * rstd)
        if CENTRED:
            away += total * share * rstd
        gw = _weighted(g, gain, col, inside, offset, A, OFFSET, FULL)
        store_rounded(grad_x + tl.cast(row, tl.int64) * n + col, gw * rstd - away, inside)
    return x_hat


@triton.jit
def _keep(
    gain_parts, bias_parts, gain_sum, bias_sum, part, n, begin, COLUMNS: tl.constexpr, FULL: tl.constexpr
):  # fmt: skip
    """Store a part of the sums."""
    col, inside = columns(n - begin, COLUMNS, FULL)
    at = tl.cast(part, tl.int64) * n + begin + col
    if gain_parts is not None:
        store_rounded(gain_parts + at, gain_sum, inside)
    if bias_parts is not None:
        store_rounded(bias_parts + at, bias_sum, inside)


@triton.jit
def backward(
    grad_y, x, statistics, gain, grad_x, gain_parts, bias_parts, words, rows, n, slabs, first, count,
    grad_stride, x_stride, offset_high, offset_low,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
    COLUMNS: tl.constexpr, SLABS: tl.constexpr, NUMBERS: tl.constexpr, PAIRS: tl.constexpr,
    LEAD: tl.constexpr, PREFETCH: tl.constexpr,
):  # fmt: skip
    """grad_x, and from the `first` on partial sums of parameters' gradients, each of every count-th row."""
    group, own_slab, begin, own_terms, slab, there, _ = place(n, slabs, A, FULL, COLUMNS, SLABS)
    part = first + group
    col, inside = columns(own_terms, COLUMNS, FULL)
    offset = of_two(offset_high, offset_low, A)
    share = inverse(tl.full((), 1.0, A) * n)
    x += begin  # where rows begin from here on
    grad_y += begin
    grad_x += begin
    own_gain = gain if gain is None else gain + begin
    own_words = words + own_slab
    gain_sum = tl.zeros((COLUMNS,), A)
    bias_sum = tl.zeros((COLUMNS,), A)
    held = ()
    for i in tl.static_range(LEAD + 1):
        early = part + i * count
        early_at = tl.cast(tl.minimum(early, rows - 1), tl.int64)
        early_v, early_g, early_kept = _slab_of(
            early_at, x, grad_y, statistics, rows, x_stride, grad_stride, own_terms,
            CENTRED, FULL, COLUMNS, PAIRS,
        )  # fmt: skip
        held = held + ((early_v, early_g, early_kept),)  # noqa: RUF005 - Triton has no other way
        if i < LEAD:
            _measure(
                numbers_of(early_g, x, A, PAIRS), numbers_of(early_v, x, A, PAIRS), early_kept,
                own_gain, own_words + early_at * NUMBERS * slabs, early < rows, col, inside, slabs, offset,
                A, CENTRED, OFFSET, FULL,
            )  # fmt: skip
    of_row = words + tl.cast(part, tl.int64) * NUMBERS * slabs + slab
    product, total = heard_both(of_row, there, slabs, A, CENTRED)
    for row in range(part, rows, count):
        next_at = tl.cast(tl.minimum(row + (LEAD + 1) * count, rows - 1), tl.int64)
        if PREFETCH:
            soon = tl.cast(tl.minimum(row + (LEAD + 2) * count, rows - 1), tl.int64)
            prefetch(x + soon * x_stride, own_terms)
            prefetch(grad_y + soon * grad_stride, own_terms)
        next_slab = _slab_of(
            next_at, x, grad_y, statistics, rows, x_stride, grad_stride, own_terms,
            CENTRED, FULL, COLUMNS, PAIRS,
        )  # fmt: skip
        tl.debug_barrier()  # or the assembler asks for them when it has waited for the others
        ready = row + LEAD * count
        ready_at = tl.cast(tl.minimum(ready, rows - 1), tl.int64)
        ready_v, ready_g, ready_kept = held[LEAD]
        _measure(
            numbers_of(ready_g, x, A, PAIRS), numbers_of(ready_v, x, A, PAIRS), ready_kept,
            own_gain, own_words + ready_at * NUMBERS * slabs, ready < rows, col, inside, slabs, offset,
            A, CENTRED, OFFSET, FULL,
        )  # fmt: skip
        of_row = words + tl.cast(row, tl.int64) * NUMBERS * slabs + slab
        its_product, its_total = _known(product, total, of_row, there, slabs, A, CENTRED)
        tl.debug_barrier()
        following = tl.cast(tl.minimum(row + count, rows - 1), tl.int64)
        of_following = words + following * NUMBERS * slabs + slab
        if LEAD > 1:
            product, total = heard_both(of_following, there, slabs, A, CENTRED)
        its_v, its_g, its_kept = held[0]
        g = numbers_of(its_g, x, A, PAIRS)
        x_hat = _finish(
            g, numbers_of(its_v, x, A, PAIRS), its_kept, its_product, its_total, statistics, row, rows, n,
            own_gain, grad_x, col, inside, share, offset, A, CENTRED, OUTSIDE, OFFSET, FULL,
        )  # fmt: skip
        if gain_parts is not None:
            gain_sum += g * x_hat
        if bias_parts is not None:
            bias_sum += g
        if LEAD == 1:  # others measure it only now: a while later
            product, total = heard_both(of_following, there, slabs, A, CENTRED)
        held = held[1:] + (next_slab,)  # noqa: RUF005
    _keep(gain_parts, bias_parts, gain_sum, bias_sum, part, n, begin, COLUMNS, FULL)


@triton.jit
def measure(
    grad_y, x, statistics, gain, grad_x, gain_parts, bias_parts, words, rows, n, slabs, first, count,
    grad_stride, x_stride, offset_high, offset_low,
    A: tl.constexpr, CENTRED: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
    COLUMNS: tl.constexpr, SLABS: tl.constexpr, NUMBERS: tl.constexpr,
):  # fmt: skip
    """Tell the sums of one slab of every count-th row."""
    group, own_slab, begin, own_terms, _, _, _ = place(n, slabs, A, FULL, COLUMNS, SLABS)
    col, inside = columns(own_terms, COLUMNS, FULL)
    offset = of_two(offset_high, offset_low, A)
    own_gain = gain if gain is None else gain + begin
    for row in range(first + group, rows, count):
        at = tl.cast(row, tl.int64)
        v = widened(tl.load(x + at * x_stride + begin + col, inside, other=0.0), A)
        g = widened(tl.load(grad_y + at * grad_stride + begin + col, inside, other=0.0), A)
        _measure(
            g, v, _kept(statistics, at, rows, CENTRED), own_gain, words + own_slab + at * NUMBERS * slabs,
            True, col, inside, slabs, offset, A, CENTRED, OFFSET, FULL,
        )  # fmt: skip


@triton.jit
def finish(
    grad_y, x, statistics, gain, grad_x, gain_parts, bias_parts, words, rows, n, slabs, first, count,
    grad_stride, x_stride, offset_high, offset_low,
    A: tl.constexpr, CENTRED: tl.constexpr, OUTSIDE: tl.constexpr, OFFSET: tl.constexpr, FULL: tl.constexpr,
    COLUMNS: tl.constexpr, SLABS: tl.constexpr, NUMBERS: tl.constexpr,
):  # fmt: skip
    """What `backward` makes, of rows of which all has been told; nothing need be, where grad_x is None."""
    group, _, begin, own_terms, slab, there, _ = place(n, slabs, A, FULL, COLUMNS, SLABS)
    col, inside = columns(own_terms, COLUMNS, FULL)
    offset = of_two(offset_high, offset_low, A)
    share = inverse(tl.full((), 1.0, A) * n)
    own_gain = gain if gain is None else gain + begin
    own_grad_x = grad_x if grad_x is None else grad_x + begin
    gain_sum = tl.zeros((COLUMNS,), A)
    bias_sum = tl.zeros((COLUMNS,), A)
    for row in range(first + group, rows, count):
        at = tl.cast(row, tl.int64)
        v = widened(tl.load(x + at * x_stride + begin + col, inside, other=0.0), A)
        g = widened(tl.load(grad_y + at * grad_stride + begin + col, inside, other=0.0), A)
        product, total = share * 0.0, share * 0.0
        if grad_x is not None:
            of_row = words + at * NUMBERS * slabs + slab
            products, totals = heard_both(of_row, there, slabs, A, CENTRED)
            product, total = _joined(products, totals, CENTRED)
        x_hat = _finish(
            g, v, _kept(statistics, at, rows, CENTRED), product, total, statistics, row, rows, n,
            own_gain, own_grad_x, col, inside, share, offset, A, CENTRED, OUTSIDE, OFFSET, FULL,
        )  # fmt: skip
        if gain_parts is not None:
            gain_sum += g * x_hat
        if bias_parts is not None:
            bias_sum += g
    _keep(gain_parts, bias_parts, gain_sum, bias_sum, first + group, n, begin, COLUMNS, FULL)
