"""All contenders, and how each is made ready for a case."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from normkit.bench.cases import Case
from normkit.bench.contenders.base import Contender, Prepared, Unavailable
from normkit.bench.contenders.on_torch import prepare_norm
from normkit.bench.operands import Operands

__all__ = ["CONTENDERS", "OURS", "PEERS", "norm", "peers", "prepare"]

OURS = "normkit"
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(OURS, "normkit", "ours", ("cpu", "cuda")),
        Contender("pytorch", "PyTorch", "eager", ("cpu", "cuda")),
        Contender("inductor", "torch.compile", "inductor", ("cpu", "cuda")),
        Contender("onnxruntime", "ONNX Runtime", "onnx_runtime"),
        Contender("jax", "JAX", "jax_jit"),
        Contender("liger", "Liger-Kernel", "liger", ("cuda",)),
        Contender("quack", "QuACK", "quack_kernels", ("cuda",)),
    )
}
PEERS = tuple(name for name in CONTENDERS if name != OURS)
# What they need; QuACK's own needs too, of which a part can be missing.
_EXTRAS = ("cuda", "cutlass", "einops", "jax", "liger_kernel", "onnx", "onnxruntime", "quack", "tvm_ffi")


def peers(device: str) -> tuple[str, ...]:
    """Who takes part on a device, next to normkit."""
    return tuple(name for name in PEERS if device in CONTENDERS[name].devices)


def prepare(name: str, case: Case, operands: Operands, threads: int) -> Prepared:
    """Make contender `name` ready on the CPU.

    Raises Unavailable where it is not installed or cannot do the case.
    """
    module, own = _module(name, "cpu"), operands.own_statistics()
    if hasattr(module, "norm"):
        return prepare_norm(case, own, module.norm(case, operands))
    prepared = module.prepare(case, own, threads)
    assert isinstance(prepared, Prepared)
    return prepared


def norm(name: str, case: Case, operands: Operands, device: str) -> Any:
    """The function of contender `name`, compiled with `operands` where it has to be.

    Raises Unavailable, likewise.
    """
    return _module(name, device).norm(case, operands)


def _module(name: str, device: str) -> ModuleType:
    if device not in CONTENDERS[name].devices:
        raise Unavailable(f"does not run on {device} here")
    try:
        return importlib.import_module(f"normkit.bench.contenders.{CONTENDERS[name].module}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _EXTRAS:
            raise
        raise Unavailable(f"{error.name} is not installed") from error
