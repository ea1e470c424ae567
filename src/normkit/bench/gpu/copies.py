"""Loops that move bytes and do nothing else, in Triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def write(a, b, target, count, BLOCK: tl.constexpr):
    """Copy a, or where there is a b the sum of both."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(a + at, at < count)
    if b is not None:
        v += tl.load(b + at, at < count)
    tl.store(target + at, v, at < count)


@triton.jit
def read(a, b, target, count, BLOCK: tl.constexpr):
    """Read a, or both, and write a number for each program."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(a + at, at < count, other=0.0)
    if b is not None:
        v += tl.load(b + at, at < count, other=0.0)
    tl.store(target + tl.program_id(0), tl.max(v.to(tl.float32)).to(target.dtype.element_ty))
