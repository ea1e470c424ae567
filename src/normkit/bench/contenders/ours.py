"""normkit's functions, as a user calls them."""

from __future__ import annotations

import normkit as nk
from normkit.bench.cases import Case
from normkit.bench.contenders.base import Prepared
from normkit.bench.contenders.on_torch import function_name, prepare_norm
from normkit.bench.operands import Operands


def prepare(case: Case, operands: Operands, threads: int) -> Prepared:
    """Threads are PyTorch's."""
    return prepare_norm(case, operands, getattr(nk.functional, function_name(case)))
