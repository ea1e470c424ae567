"""A slab of a row that several programs share: how it is read, and how they tell each other of it.

They do so through memory, in `words`, (rows, numbers, slabs), by the numbers' bits. All of these are set in a
word that is still to come: as a number that is none, which what is made of it can't be mistaken for.
"""

from __future__ import annotations

import triton
import triton.language as tl

from normkit.kernels.triton.arithmetic import unpacked, widened


@triton.jit
def place(n, slabs, A: tl.constexpr, FULL: tl.constexpr, COLUMNS: tl.constexpr, SLABS: tl.constexpr):
    """Where a program stands: its group, its slab and where that begins, how many elements it has, all
    slabs, which of them there are, and how many elements they have.
    """
    program = tl.program_id(0)
    own_slab = program % slabs
    begin = tl.cast(own_slab, tl.int64) * COLUMNS
    slab = tl.arange(0, SLABS)
    there = slab < slabs
    own_terms, terms = COLUMNS, tl.full((SLABS,), 1.0, A) * COLUMNS
    if not FULL:
        own_terms = tl.minimum(n - begin, COLUMNS).to(tl.int32)
        terms = tl.where(there, tl.minimum(n - tl.cast(slab, n.dtype) * COLUMNS, COLUMNS), 0).to(A)
    return program // slabs, own_slab, begin, own_terms, slab, there, terms


@triton.jit
def columns(there, COLUMNS: tl.constexpr, FULL: tl.constexpr):
    """A slab's columns, and which of them it has: `there` of them, all where every slab is FULL."""
    col = tl.arange(0, COLUMNS)
    inside = tl.full((COLUMNS,), True, tl.int1)
    if not FULL:
        inside = col < there
    return col, inside


@triton.jit
def as_it_lies(slab, there, COLUMNS: tl.constexpr, FULL: tl.constexpr, PAIRS: tl.constexpr):
    """A slab of `there` numbers; PAIRS of numbers of 16 bits, which take half the registers so."""
    if PAIRS:
        pair = tl.arange(0, COLUMNS // 2)
        pairs = slab.to(tl.pointer_type(tl.int32), bitcast=True) + pair
        if FULL:
            return tl.load(pairs)
        else:
            return tl.load(pairs, 2 * pair < there, other=0)
    else:
        col, inside = columns(there, COLUMNS, FULL)
        return tl.load(slab + col, inside, other=0.0)


@triton.jit
def numbers_of(read, x, A: tl.constexpr, PAIRS: tl.constexpr):
    """What `as_it_lies` read where x lies, as numbers of dtype A."""
    if PAIRS:
        return unpacked(read, x.dtype.element_ty, A)
    else:
        return widened(read, A)


@triton.jit
def prefetch(slab, there):
    """Have the GPU's second cache read a slab of `there` numbers; the program's first thread asks for it.

    By an instruction of sm_90 and later, for multiples of 16 bytes: what is not whole is left out.
    """
    size: tl.constexpr = slab.dtype.element_ty.primitive_bitwidth // 8
    begin = slab.to(tl.int64)
    end = begin + there * size
    begin = (begin + 15) & -16
    whole = tl.maximum((end & -16) - begin, 0).to(tl.int32)
    tl.inline_asm_elementwise(
        """{
            .reg .pred asks;
            .reg .b32 thread;
            mov.u32 thread, %tid.x;
            setp.eq.u32 asks, thread, 0;
            setp.gt.and.s32 asks, $2, 0, asks;
            @asks cp.async.bulk.prefetch.L2.global [$1], $2;
            mov.b32 $0, 0;
        }""",
        "=r,l,r",
        [begin, whole],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def asked():
    """Zero, known when a program's threads all have asked for what stands before: what needs it comes later.

    A barrier alone keeps memory's order: the assembler may do arithmetic first, and ask when that is done.
    """
    return tl.inline_asm_elementwise(
        """{
            .reg .pred none;
            setp.ne.u32 none, $1, $1;
            bar.red.popc.u32 $0, 0, none;
        }""",
        "=r,r",
        [tl.program_id(0)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


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
def heard_both(at, there, slabs, A: tl.constexpr, BOTH: tl.constexpr):
    """Likewise, of the first number, or of the first two."""
    first = heard(at, there, A)
    second = first
    if BOTH:
        second = heard(at + slabs, there, A)
    return first, second


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
