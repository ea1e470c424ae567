"""Whether outputs lie in memory already in use ("warm") or in pages new to the process ("fresh").

Left to itself the C library gives one or the other by luck, and new pages cost as much as a norm.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
from collections.abc import Iterator
from typing import Any

__all__ = ["fresh", "keep_memory", "page_faults"]

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
