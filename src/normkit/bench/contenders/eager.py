"""PyTorch's own functions."""

from __future__ import annotations

from typing import Any

import torch

from normkit.bench.cases import Case
from normkit.bench.contenders.on_torch import function_name
from normkit.bench.operands import Operands


def norm(case: Case, operands: Operands) -> Any:
    """Threads are PyTorch's; so is the choice of kernel on a GPU."""
    return getattr(torch.nn.functional, function_name(case))
