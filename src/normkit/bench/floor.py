"""The floor: the fewest bytes a norm must move, moved by the core's own loops and nothing else done."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from normkit import backends

__all__ = ["Variants", "variants"]

# Defined here, not among the norms' operators: only the bench has a use for them.
for _schema in (
    "floor_copy(Tensor source, Tensor(a!) target, bool stream) -> ()",
    "floor_triad(Tensor a, Tensor b, Tensor(a!) target, bool stream) -> ()",
    "floor_read(Tensor a) -> ()",
    "floor_read2(Tensor a, Tensor b) -> ()",
):
    torch.library.define(f"normkit::{_schema.split('(')[0]}", _schema[_schema.index("(") :])

copy = torch.ops.normkit.floor_copy.default
triad = torch.ops.normkit.floor_triad.default
read = torch.ops.normkit.floor_read.default
read2 = torch.ops.normkit.floor_read2.default

Variants = dict[str, Callable[[], object]]


def variants(a: Tensor, b: Tensor, target: Tensor, parts: tuple[str, ...]) -> dict[str, Variants]:
    """Per part of a floor the ways to move its bytes, of which the fastest counts.

    a, b: what is read, target: what is written, three tensors of one size and memory format without
    gaps. parts: of "copy", "triad", "read", "read2". Without the C++ core there is PyTorch's copy only,
    and the other parts have no variant.
    """
    a, b, target = _flat(a), _flat(b), _flat(target)
    known: dict[str, Variants] = {"copy": {"memcpy": lambda: target.copy_(a)}}
    if backends()["cpu"].why_not is None:
        known["copy"] |= {
            "SIMD": lambda: copy(a, target, False),
            "SIMD, streaming": lambda: copy(a, target, True),
        }
        known["triad"] = {
            "SIMD": lambda: triad(a, b, target, False),
            "SIMD, streaming": lambda: triad(a, b, target, True),
        }
        known["read"] = {"SIMD": lambda: read(a)}
        known["read2"] = {"SIMD": lambda: read2(a, b)}
    return {part: known.get(part, {}) for part in parts}


def _flat(tensor: Tensor) -> Tensor:
    """The tensor's memory in one dimension, whatever its format."""
    return tensor.detach().as_strided((tensor.numel(),), (1,))
