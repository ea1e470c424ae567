"""All contenders, and how each is made ready for a case."""

from __future__ import annotations

import importlib

from normkit.bench.cases import Case
from normkit.bench.contenders.base import Contender, Prepared, Unavailable
from normkit.bench.operands import Operands

__all__ = ["CONTENDERS", "OURS", "PEERS", "prepare"]

OURS = "normkit"
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(OURS, "normkit", "ours"),
        Contender("pytorch", "PyTorch", "eager"),
        Contender("inductor", "torch.compile", "inductor"),
        Contender("onnxruntime", "ONNX Runtime", "onnx_runtime"),
        Contender("jax", "JAX", "jax_jit"),
    )
}
PEERS = tuple(name for name in CONTENDERS if name != OURS)
_EXTRAS = ("jax", "onnx", "onnxruntime")


def prepare(name: str, case: Case, operands: Operands, threads: int) -> Prepared:
    """Make contender `name` ready. Raises Unavailable where it is not installed or cannot do the case."""
    try:
        module = importlib.import_module(f"normkit.bench.contenders.{CONTENDERS[name].module}")
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        raise Unavailable(f"{error.name} is not installed") from error
    prepared = module.prepare(case, operands.own_statistics(), threads)
    assert isinstance(prepared, Prepared)
    return prepared
