"""A slab of a row that several programs share: how it is read, and how they tell each other of it.

They do so through memory, in `words`, (rows, numbers, slabs), by the numbers' bits. All of these are set in a
word that is still to come: as a number that is none, which what is made of it can't be mistaken for.
"""

from __future__ import annotations

import triton
import triton.language as tl

from normkit.kernels.triton.arithmetic import unpacked, widened


@triton.jit
def columns(begin, there, COLUMNS: tl.constexpr, FULL: tl.constexpr):
    """A slab's columns, and which of them it has: `there` of them, all where every slab is FULL."""
    col = tl.arange(0, COLUMNS)
    inside = tl.full((COLUMNS,), True, tl.int1)
    if not FULL:
        inside = col < there
    return begin + col, inside


@triton.jit
def as_it_lies(row, begin, there, COLUMNS: tl.constexpr, FULL: tl.constexpr, PAIRS: tl.constexpr):
    """A row's slab of `there` numbers; PAIRS of numbers of 16 bits, which take half the registers so."""
    if PAIRS:
        pair = tl.arange(0, COLUMNS // 2)
        pairs = row.to(tl.pointer_type(tl.int32), bitcast=True) + (begin // 2 + pair)
        if FULL:
            return tl.load(pairs)
        else:
            return tl.load(pairs, 2 * pair < there, other=0)
    else:
        col, inside = columns(begin, there, COLUMNS, FULL)
        return tl.load(row + col, inside, other=0.0)


@triton.jit
def numbers_of(read, x, A: tl.constexpr, PAIRS: tl.constexpr):
    """What `as_it_lies` read where x lies, as numbers of dtype A."""
    if PAIRS:
        return unpacked(read, x.dtype.element_ty, A)
    else:
        return widened(read, A)


@triton.jit
def tell(to, v, there):
    """Store a number for other programs, but a NaN by other bits than those of a word that is to come."""
    v = tl.where(v == v, v, float("nan"))
    tl.store(to, v.to(to.dtype.element_ty, bitcast=True), there)


@triton.jit
def heard(at, there, A: tl.constexpr):
    """What others have told, or have not yet."""
    return tl.load(at, there, other=0, volatile=True).to(A, bitcast=True)


@triton.jit
def wait(at, there, slabs, NUMBERS: tl.constexpr):
    """Until all slabs have told these numbers of a row. All are asked for at once: an answer takes time."""
    to_come = 1
    while to_come > 0:
        missing = (tl.load(at, there, other=0, volatile=True) == -1).to(tl.int32)
        for number in tl.static_range(1, NUMBERS):
            word = tl.load(at + number * slabs, there, other=0, volatile=True)
            missing += (word == -1).to(tl.int32)
        to_come = tl.sum(missing, 0)
