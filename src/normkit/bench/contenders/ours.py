"""normkit's functions, as a user calls them."""

from __future__ import annotations

from typing import Any

import normkit as nk
from normkit.bench.cases import Case
from normkit.bench.contenders.on_torch import function_name
from normkit.bench.operands import Operands


def norm(case: Case, operands: Operands) -> Any:
    """Threads are PyTorch's."""
    return getattr(nk.functional, function_name(case))
