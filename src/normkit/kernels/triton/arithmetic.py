"""What the kernels' formulas are made of: inverses, roots, scales, sums, rounding."""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def widened(v, A: tl.constexpr):
    """The same in the dtype A; of a bfloat16 the bits, for which compilers find fewer instructions."""
    if v.dtype == tl.bfloat16 and A == tl.float32:  # noqa: SIM300 - a dtype, not a constant of ours
        return (v.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        return v.to(A)


@triton.jit
def unpacked(pairs, DTYPE: tl.constexpr, A: tl.constexpr):
    """Pairs of numbers of 16 bits, as they lie in memory, in the dtype A."""
    low = widened(pairs.to(tl.int16).to(DTYPE, bitcast=True), A)
    high = widened((pairs >> 16).to(tl.int16).to(DTYPE, bitcast=True), A)
    return tl.reshape(tl.join(low, high), (2 * pairs.shape[0],))


@triton.jit
def of_two(high, low, A: tl.constexpr):
    """A number that a launch was given as two."""
    one = tl.full((), 1.0, A)
    return one * high + one * low


@triton.jit
def inverse(v):
    """1 / v. In float32 the GPU's estimate and a step of Newton's: within a unit, and no subroutine."""
    r = 1.0 / v
    if v.dtype == tl.float32:
        step = r * (1.0 - v * r)
        r = tl.where((v != 0) & (tl.abs(v) <= 3.4e38) & (tl.abs(r) <= 3.4e38), r + step, r)
    return r


@triton.jit
def inverse_root(v):
    """1 / sqrt(v), likewise."""
    r = tl.rsqrt(v)
    step = 0.5 * r * (1.0 - (v * r) * r)
    return tl.where((r > 0) & (r < float("inf")), r + step, r)


@triton.jit
def root(v):
    """sqrt(v), of the smallest numbers too, which the GPU's estimate takes for zeros."""
    if v.dtype == tl.float32:
        return tl.sqrt_rn(v)
    else:
        return tl.sqrt(v)


@triton.jit
def scale_for(most, eps):
    """A power of two that keeps the squares of numbers up to `most` in range, and its inverse; 1 where
    they are anyway. Small ones matter only where eps, as it stands beside squares, does not dwarf them: then
    `most` becomes 1 to 2, so that the last places of equal numbers still have squares.
    """
    if most.dtype == tl.float32:
        exponent = ((most.to(tl.int32, bitcast=True) >> 23) & 255) - 127
        exponent = tl.minimum(tl.maximum(exponent, -100), 126)
        down = ((127 - exponent) << 23).to(tl.float32, bitcast=True)
        up = ((127 + exponent) << 23).to(tl.float32, bitcast=True)
        far = (most > 1e15) | ((most > 0) & (most < 1) & (eps < 1e-30))
    else:
        exponent = ((most.to(tl.int64, bitcast=True) >> 52) & 2047) - 1023
        exponent = tl.minimum(tl.maximum(exponent, -900), 1022)
        down = ((1023 - exponent) << 52).to(tl.float64, bitcast=True)
        up = ((1023 + exponent) << 52).to(tl.float64, bitcast=True)
        far = (most > 1e150) | ((most > 0) & (most < 1) & (eps < 1e-250))
    return tl.where(far, down, 1.0), tl.where(far, up, 1.0)


@triton.jit
def rounded(v, sure):
    """v, a product, as it is stored: one that is subtracted at once is otherwise not rounded before.

    What was subtracted would not be what is known of it. sure: true, which a compiler can't know.
    """
    return tl.where(sure, v, 0.0)


@triton.jit
def by_fours(v):
    """Sums of four neighbours in a row each: a thread would else add up all of its own in one long chain."""
    if v.shape[-1] < 4:
        return v
    elif len(v.shape) == 1:
        return tl.sum(tl.reshape(v, (v.shape[0] // 4, 4)), 1)
    else:
        return tl.sum(tl.reshape(v, (v.shape[0], v.shape[1] // 4, 4)), 2)


@triton.jit
def _add_each(a, b, c, d):
    return a + c, b + d


@triton.jit
def sum_both(a, b, axis: tl.constexpr, KEEP: tl.constexpr = False):
    """Two sums, for which a program's threads wait for each other once. KEEP: the axis, with length 1."""
    if INTERPRETED:  # which takes a minute for what it does not know by name
        return tl.sum(a, axis, keep_dims=KEEP), tl.sum(b, axis, keep_dims=KEEP)
    else:
        return tl.reduce((a, b), axis, _add_each, keep_dims=KEEP)


@triton.jit
def two_sum(a, b):
    """The exact sum of a and b in two numbers: its rounding, and what that lost.

    Knuth, "The Art of Computer Programming", volume 2, section 4.2.2.
    """
    total = a + b
    tail = total - a
    return total, (a - (total - tail)) + (b - tail)


@triton.jit
def store_rounded(to, v, mask):
    """Store v in the dtype of its place. A half is made from float32: GPUs have no other way to one."""
    if to.dtype.element_ty.primitive_bitwidth == 16:
        v = v.to(tl.float32)
    tl.store(to, v.to(to.dtype.element_ty), mask)
