"""Whether outputs lie in memory already in use ("warm") or in pages new to the process ("fresh").

Left to itself the C library gives one or the other by luck, and new pages cost as much as a norm. So does
one of several blocks in use, by turns: a cache may hold one of them, and not all.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import normkit.bench

__all__ = ["fresh", "keep_memory", "one_place", "page_faults"]

# mallopt's numbers of its parameters, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
# In fresh mode larger blocks are mapped at each allocation and unmapped when freed.
_FRESH_BYTES = 2**19
_MOST_MAPPINGS = 2**16  # the C library's own setting


def keep_memory() -> bool:
    """Have the C library keep freed memory, so that outputs are warm; False where it can't be asked."""
    mallopt = getattr(_c_library(), "mallopt", None)
    if mallopt is None:  # not glibc
        return False
    # No mappings, as a large block of its own is unmapped when freed, whatever the threshold.
    return bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_MMAP_MAX, 0))


@contextlib.contextmanager
def one_place() -> Iterator[bool]:
    """While it lasts, a large tensor lies where the last one of its size lay; False where it can't be asked.

    On the CPU, of PyTorch's own memory: so what one contender allocates lies where another's did.
    """
    allocator = _allocator()
    if allocator is None:
        yield False
        return
    allocator.normkit_one_place()
    try:
        yield True
    finally:
        allocator.normkit_any_place()


@contextlib.contextmanager
def fresh() -> Iterator[bool]:
    """While it lasts, every block of 0.5 MB and more comes from new pages; False where it can't be asked.

    Afterwards memory is kept again.
    """
    library = _c_library()
    if not hasattr(library, "mallopt") or not hasattr(library, "mallinfo"):
        yield False
        return
    library.malloc_trim(0)
    library.mallopt(_MMAP_MAX, _MOST_MAPPINGS)
    library.mallopt(_MMAP_THRESHOLD, _FRESH_BYTES)
    held = _occupy_free_blocks(library)
    try:
        yield True
    finally:
        for block in held:
            library.free(block)
        keep_memory()


def page_faults() -> int:
    """Pages given to this process so far that needed no disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _allocator() -> Any | None:
    """one_place.cpp, where it was built for the PyTorch at hand."""
    for folder in normkit.bench.__path__:
        library = Path(folder) / f"_one_place-{torch.__version__}.so"
        if library.exists():
            return ctypes.CDLL(str(library))
    return None


def _occupy_free_blocks(library: Any) -> list[int]:
    """Allocate until the library has no free block left that could serve instead of new pages.

    The blocks are not touched, so they cost addresses and no memory.
    """
    held: list[int] = []
    while True:
        before = library.mallinfo().mapped
        block = library.malloc(_FRESH_BYTES)
        if block is None:
            return held
        held.append(block)
        if library.mallinfo().mapped > before:
            return held


class _MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo`."""

    _fields_ = [
        (name, ctypes.c_int)
        for name in (
            *("arena", "free_chunks", "fast_chunks", "mapped", "mapped_bytes"),
            *("unused", "fast_bytes", "used_bytes", "free_bytes", "top_bytes"),
        )
    ]


def _c_library() -> Any:
    library = ctypes.CDLL(None)
    if hasattr(library, "mallinfo"):
        library.mallinfo.restype = _MallocInfo
        library.malloc.argtypes, library.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
        library.free.argtypes, library.free.restype = (ctypes.c_void_p,), None
    return library
