"""What serves an operator on a GPU: a Triton kernel, looked for when the first GPU tensor arrives."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any


def why_not() -> str | None:
    """Why Triton can't serve, or None where it can."""
    return None if importlib.util.find_spec("triton") else "Triton is not installed: `pip install triton`"


def serve(name: str, fallback: Callable[..., Any]) -> Callable[..., Any]:
    """The operator of this name in Triton; `fallback` where there is none."""

    @functools.cache
    def kernel() -> Callable[..., Any]:
        if why_not() is not None:
            return fallback
        from normkit.kernels import triton

        return getattr(triton, name, fallback)

    def served(*arguments: Any) -> Any:
        return kernel()(*arguments)

    return served
