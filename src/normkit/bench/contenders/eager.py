"""PyTorch's own functions."""

from __future__ import annotations

import torch

from normkit.bench.cases import Case
from normkit.bench.contenders.base import Prepared
from normkit.bench.contenders.on_torch import function_name, prepare_norm
from normkit.bench.operands import Operands


def prepare(case: Case, operands: Operands, threads: int) -> Prepared:
    """Threads are PyTorch's."""
    return prepare_norm(case, operands, getattr(torch.nn.functional, function_name(case)))
