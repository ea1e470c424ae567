"""The gradients' nodes in C++ (autograd.cpp), where they were built for the PyTorch at hand."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

import normkit.ops

__all__ = ["load"]


def load() -> bool:
    """Load them; whether there are any. Without, `torch.autograd.Function` does the same, only slower."""
    for folder in normkit.ops.__path__:
        library = Path(folder) / f"_autograd-{torch.__version__}.so"
        if library.exists():
            try:
                torch.ops.load_library(library)  # type: ignore[no-untyped-call]
            except OSError as error:  # built for another machine or build of PyTorch
                message = f"normkit: gradients of small inputs take longer, for want of their nodes: {error}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
                return False
            return True
    return False
