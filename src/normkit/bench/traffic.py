"""The bytes a case must move at the least, and the copies that move just these: its floor."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from normkit.bench.cases import Case
from normkit.bench.machine import Machine

__all__ = ["Traffic", "traffic"]


@dataclass(frozen=True)
class Traffic:
    """How often a case must read and write a tensor of its input's size, and by which copies to time that.

    parts: of "copy" (1 read, 1 write), "triad" (2 reads, 1 write), "read" and "read2" (1 and 2 reads).
    """

    parts: tuple[str, ...]

    @property
    def reads(self) -> int:
        """Tensors read."""
        return sum({"copy": 1, "triad": 2, "read": 1, "read2": 2}[part] for part in self.parts)

    @property
    def writes(self) -> int:
        """Tensors written."""
        return sum(part in ("copy", "triad") for part in self.parts)


def traffic(case: Case, machine: Machine) -> Traffic:
    """The fewest bytes: weights, biases and statistics are too small to count.

    A norm needs its statistics before it can write. A row stays in cache meanwhile, so a row norm reads
    once. BatchNorm in training reads a second time where what shares statistics does not stay in the
    cache: per channel, or, with the channels last, the whole tensor over all threads' caches. A GPU has all
    channels in hand at once, and one cache.
    """
    forward: tuple[str, ...] = ("copy",)
    backward: tuple[str, ...] = ("triad",)
    if case.op == "batch_norm_training":
        if not _stays(case, machine, tensors=1):
            forward = ("read", "copy")
        if not _stays(case, machine, tensors=2):
            backward = ("read2", "triad")
    parts = {"forward": forward, "backward": backward, "forward+backward": forward + backward}
    return Traffic(parts[case.direction])


def _stays(case: Case, machine: Machine, tensors: int) -> bool:
    if machine.device != "cpu":
        return tensors * case.tensor_bytes <= machine.l2_bytes
    planar = len(case.shape) > 2 and not case.channels_last
    if planar:
        itemsize: int = getattr(torch, case.dtype).itemsize
        return tensors * case.sharing * itemsize <= machine.l2_bytes
    return tensors * case.tensor_bytes <= machine.threads * machine.l2_bytes
