"""The kernels, a folder or file per kind of device. They know nothing of what stands above them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from normkit.kernels import cpu, gpu


@dataclass(frozen=True)
class Backend:
    """Which kernels serve a kind of device.

    device: ``torch.device(...).type``.
    kernel: what runs there.
    why_not: why normkit's own kernels do not, or None where they do.
    """

    device: str
    kernel: str
    why_not: str | None = None

    def __str__(self) -> str:
        return f"{self.device}: {self.kernel}" + (f" ({self.why_not})" if self.why_not else "")


_PYTORCH = "PyTorch's own operators"


def backends() -> dict[str, Backend]:
    """Which kernel serves which device, and why not another.

    >>> import normkit as nk
    >>> sorted(nk.backends())[0]
    'cpu'
    """
    found = {"cpu": _cpu()}
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        found[accelerator.type] = _accelerator(accelerator.type)
    return found


def _accelerator(kind: str) -> Backend:
    reason = gpu.why_not(kind)
    return Backend(kind, _PYTORCH if reason else "normkit Triton kernels", reason)


def _cpu() -> Backend:
    if cpu.why_not is not None:
        return Backend("cpu", _PYTORCH, f"no C++ core: {cpu.why_not}")
    return Backend("cpu", f"normkit C++ core, {cpu.instruction_set()}")
