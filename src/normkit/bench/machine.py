"""The machine and the versions that figures belong to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import torch

import normkit as nk

__all__ = ["FALLBACK_L2", "Machine", "l2_bytes", "this_machine"]

# Where the system does not tell: that of most x86-64 servers since 2017 (some have half of it).
FALLBACK_L2 = 2**20

_LIBRARIES = ("triton", "onnxruntime", "jax", "liger-kernel", "quack-kernels")


@dataclass(frozen=True)
class Machine:
    """Where and with what the figures were measured.

    device: "cpu" or "cuda". gpu: its name, empty on a CPU. l2_bytes: the second-level cache, of a core or of
    the GPU.
    """

    device: str
    gpu: str
    cpu: str
    cores: int
    threads: int
    l2_bytes: int
    system: str
    python: str
    normkit: str
    torch: str
    kernels: str
    libraries: dict[str, str]

    @property
    def name(self) -> str:
        """Machine and versions in a file's name; one vendor's processors may all be called the same."""
        where = self.gpu or f"{self.cpu}-{self.instructions}-{self.threads}threads"
        text = f"{where}-normkit{self.normkit}-torch{self.torch.split('+')[0]}"
        return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")

    @property
    def instructions(self) -> str:
        """The instruction set of the CPU's kernels, empty where they are PyTorch's."""
        return self.kernels.partition(" core, ")[2]

    @property
    def title(self) -> str:
        """What the figures are of, in a few words."""
        if self.gpu:
            return self.gpu
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return ", ".join(part for part in (self.cpu, self.instructions, threads) if part)


def this_machine(device: str = "cpu") -> Machine:
    """The machine this runs on, with PyTorch's number of threads as it is set now."""
    on_gpu = device == "cuda"
    return Machine(
        device=device,
        gpu=torch.cuda.get_device_name() if on_gpu else "",
        cpu=_cpu_model(),
        cores=_cores(),
        threads=torch.get_num_threads(),
        l2_bytes=torch.cuda.get_device_properties().L2_cache_size if on_gpu else l2_bytes(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        normkit=nk.__version__,
        torch=torch.__version__,
        kernels=str(nk.backends()[device]),
        libraries={name: version for name in _LIBRARIES if (version := _version(name)) is not None},
    )


def l2_bytes(told: Path = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")) -> int:
    """The second-level cache of a core as Linux tells it, `FALLBACK_L2` where the system does not.

    >>> l2_bytes() >= 2**18
    True
    """
    try:
        size = re.fullmatch(r"([1-9]\d*)K\s*", told.read_text(encoding="utf-8"))
    except OSError:
        size = None
    return int(size[1]) * 1024 if size else FALLBACK_L2


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
