"""The floor on a GPU: the fewest bytes a norm must move, moved by PyTorch's copy and by loops of our own."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from normkit.bench.gpu import copies
from normkit.bench.gpu.replay import Replay
from normkit.bench.timing import Call

__all__ = ["plain_copy", "variants"]

# Elements and warps of a program: what is best depends on the chip, so all are tried.
SIZES = ((1024, 4), (4096, 4), (4096, 8), (8192, 8), (16384, 16))


def variants(pairs: Sequence[tuple[Tensor, Tensor]], parts: tuple[str, ...]) -> dict[str, dict[str, Call]]:
    """Per part of a floor the ways to move its bytes, of which the fastest counts.

    pairs: two tensors of one size, without gaps, of each call. parts: of "copy", "triad", "read", "read2".
    """
    flat = [(_flat(a), _flat(b), torch.empty_like(_flat(a))) for a, b in pairs]
    return {part: _ways(part, flat) for part in parts}


def plain_copy(tensors: Sequence[Tensor]) -> Call:
    """PyTorch's copy of each."""
    return Replay([functools.partial(torch.empty_like(t).copy_, t) for t in tensors])


def _ways(part: str, triples: list[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Call]:
    ways: dict[str, Call] = {}
    if part == "copy":
        ways["copy_"] = Replay([functools.partial(target.copy_, a) for a, _, target in triples])
    kernel, two = copies.read if part.startswith("read") else copies.write, part in ("triad", "read2")
    for block, warps in SIZES:
        calls = [
            functools.partial(_launch, kernel, a, b if two else None, target, block, warps)
            for a, b, target in triples
        ]
        ways[f"Triton, {block} elements, {warps} warps"] = Replay(calls)
    return ways


def _launch(kernel: Any, a: Tensor, b: Tensor | None, target: Tensor, block: int, warps: int) -> None:
    kernel[(triton.cdiv(a.numel(), block),)](a, b, target, a.numel(), BLOCK=block, num_warps=warps)


def _flat(tensor: Tensor) -> Tensor:
    """The tensor's memory in one dimension, whatever its format."""
    return tensor.detach().as_strided((tensor.numel(),), (1,))
