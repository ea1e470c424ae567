"""The C++ core. Loading it registers its kernels with PyTorch for CPU tensors.

`why_not` is None where the core was loaded, else the reason it was not.
"""

from __future__ import annotations

why_not: str | None = None

try:
    import normkit.kernels.cpu._core as _core
except ModuleNotFoundError:
    why_not = "it was not built when normkit was installed"
except ImportError as error:  # built, but not for this PyTorch, Python or machine
    why_not = str(error)


def instruction_set() -> str | None:
    """The instruction set in use, ``"avx512"``, ``"avx2"`` or ``"portable"``; None without the core."""
    return None if why_not else _core.instruction_set()


def entries() -> object | None:
    """The core's operators as plain functions, for `normkit.ops._compiled`; None without the core."""
    return None if why_not else _core.entries()
