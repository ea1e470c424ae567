"""The C++ core. Loading it registers its kernels with PyTorch for CPU tensors.

`why_not` is None where the core was loaded, else the reason it was not.
"""

from __future__ import annotations

why_not: str | None = None

try:
    from normkit.kernels.cpu import _core
except ImportError as error:  # not built, or built for another platform: PyTorch's operators serve
    why_not = str(error)


def instruction_set() -> str | None:
    """The instruction set in use, ``"avx512"``, ``"avx2"`` or ``"portable"``; None without the core."""
    return None if why_not else _core.instruction_set()
