"""What serves an operator on a GPU: a Triton kernel, looked for when the first GPU tensor arrives."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

# Whether it has, and has a kernel: quicker to ask than whether a tensor is on a GPU, where none ever is.
arrived = False


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
            kernel = kernel_of(name, fallback)
        return kernel(*arguments)

    return served


def kernel_of(name: str, fallback: Callable[..., Any]) -> Callable[..., Any]:
    """The operator's kernel, or `fallback`. Asked for when a GPU tensor has arrived, as it imports Triton."""
    global arrived
    if why_not("cuda") is not None:
        return fallback
    from normkit.kernels.triton import OPERATORS

    arrived = True
    return OPERATORS.get(name, fallback)
