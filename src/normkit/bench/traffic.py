"""The bytes a case must move at the least, and the copies that move just these: its floor."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from normkit.bench.cases import Case

__all__ = ["FALLBACK_L2", "Traffic", "l2_bytes", "traffic"]

# Where the system does not tell: the smallest second-level cache of the x86-64 servers since 2017, so
# that no pass over memory is left out that some machine must make.
FALLBACK_L2 = 2**20


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


def l2_bytes() -> int:
    """The second-level cache of a core, `FALLBACK_L2` where the system does not tell."""
    try:
        known = os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (ValueError, AttributeError, OSError):  # another C library
        known = 0
    return known if known > 0 else FALLBACK_L2


def traffic(case: Case, l2: int, threads: int) -> Traffic:
    """The fewest bytes: weights, biases and statistics are too small to count.

    A norm needs its statistics before it can write. A row stays in cache meanwhile, so a row norm reads
    once. BatchNorm in training reads a second time where what shares statistics does not stay in the
    cache: per channel, or, with the channels last, the whole tensor over all threads' caches.
    """
    forward: tuple[str, ...] = ("copy",)
    backward: tuple[str, ...] = ("triad",)
    if case.op == "batch_norm_training":
        if not _stays(case, l2, threads, tensors=1):
            forward = ("read", "copy")
        if not _stays(case, l2, threads, tensors=2):
            backward = ("read2", "triad")
    parts = {"forward": forward, "backward": backward, "forward+backward": forward + backward}
    return Traffic(parts[case.direction])


def _stays(case: Case, l2: int, threads: int, tensors: int) -> bool:
    planar = len(case.shape) > 2 and not case.channels_last
    if planar:
        itemsize: int = getattr(torch, case.dtype).itemsize
        return tensors * case.sharing * itemsize <= l2
    return tensors * case.tensor_bytes <= threads * l2
