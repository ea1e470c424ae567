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
from normkit.bench.traffic import l2_bytes

__all__ = ["Machine", "this_machine"]

_LIBRARIES = ("onnxruntime", "jax")


@dataclass(frozen=True)
class Machine:
    """Where and with what the figures were measured; l2_bytes is the second-level cache of a core."""

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
        """Machine and versions in a file's name."""
        text = f"{self.cpu}-{self.threads}threads-normkit{self.normkit}-torch{self.torch.split('+')[0]}"
        return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def this_machine() -> Machine:
    """The machine this runs on, with PyTorch's number of threads as it is set now."""
    return Machine(
        cpu=_cpu_model(),
        cores=_cores(),
        threads=torch.get_num_threads(),
        l2_bytes=l2_bytes(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        normkit=nk.__version__,
        torch=torch.__version__,
        kernels=str(nk.backends()["cpu"]),
        libraries={name: version for name in _LIBRARIES if (version := _version(name)) is not None},
    )


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
