"""Eager mode in C++ (eager.h), where it was built for the PyTorch and Python at hand: calls and nodes."""

from __future__ import annotations

import warnings
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import torch

import normkit.ops
from normkit.kernels import cpu

__all__ = ["load"]


def load() -> ModuleType | None:
    """Load it, and show it the core; None where there is none: all works without, small calls take longer."""
    for folder in normkit.ops.__path__:
        library = Path(folder) / f"_eager-{torch.__version__}{EXTENSION_SUFFIXES[0]}"
        if library.exists():
            try:
                loader = ExtensionFileLoader("normkit.ops._eager", str(library))
                spec = spec_from_loader(loader.name, loader)
                assert spec is not None
                module = module_from_spec(spec)
                loader.exec_module(module)
            except ImportError as error:  # built for another machine or build of PyTorch
                message = f"normkit: small inputs take longer, for want of eager mode in C++: {error}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
                return None
            entries = cpu.entries()
            if entries is not None:
                module.connect(entries)
            return module
    return None
