"""PyTorch's functions through `torch.compile`, with Inductor."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch._functorch import config as functorch_config

from normkit.bench.cases import Case
from normkit.bench.contenders.base import Unavailable
from normkit.bench.contenders.on_torch import function_name, prepare_norm
from normkit.bench.operands import Operands


def norm(case: Case, operands: Operands) -> Any:
    """Compile for this case's shapes alone; nothing of an earlier case counts towards recompile limits."""
    function = getattr(torch.nn.functional, function_name(case))

    def norm(*arguments: Any) -> Tensor:
        y: Tensor = function(*arguments)
        return y

    # A backward pass timed alone runs many times on one graph, which may then not give its memory away.
    with (
        warnings.catch_warnings(),
        functorch_config.patch(donated_buffer=case.direction != "backward"),
    ):
        warnings.simplefilter("ignore")  # its own imports warn, and it advises about precision
        torch._dynamo.reset()
        compiled = torch.compile(norm, dynamic=False)
        try:
            prepare_norm(case, operands.own_statistics(), compiled).call()  # compiles, forward and backward
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise Unavailable(f"failed to compile: {reason[:200]}") from error
    return compiled
