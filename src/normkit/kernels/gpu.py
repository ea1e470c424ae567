"""What serves an operator on a GPU: a Triton kernel, looked for when the first GPU tensor arrives."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any


def why_not(kind: str) -> str | None:
    """Why our kernels don't serve this kind of device, or None where they do."""
    if kind != "cuda":
        return f"normkit has no kernels for {kind} yet"
    return None if importlib.util.find_spec("triton") else "Triton is not installed: `pip install triton`"


def serve(name: str, fallback: Callable[..., Any]) -> Callable[..., Any]:
    """The operator of this name in Triton; `fallback` where there is none."""
    kernel: Callable[..., Any] | None = None

    def served(*arguments: Any) -> Any:
        nonlocal kernel
        if kernel is None:
            kernel = _kernel(name, fallback)
        return kernel(*arguments)

    return served


def _kernel(name: str, fallback: Callable[..., Any]) -> Callable[..., Any]:
    if why_not("cuda") is not None:
        return fallback
    from normkit.kernels.triton import OPERATORS

    return OPERATORS.get(name, fallback)
