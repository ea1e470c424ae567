"""Warm outputs take no new pages, fresh ones nothing else."""

import ctypes
import resource

import pytest
import torch

from normkit.bench import memory

from ..process import python

glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library")
PAGE = resource.getpagesize()

# In a process of its own: what the library keeps is the whole process's.
PROBE = """
import sys, torch
from normkit.bench import memory
def faults(calls):
    x = torch.ones(int(sys.argv[1]) // 4)
    least = sys.maxsize
    for _ in range(calls):  # the first ones may still take free blocks without pages
        before = memory.page_faults()
        (x + 1, x + 2)
        least = min(least, memory.page_faults() - before)
    return least
assert memory.keep_memory()
warm = faults(8)
with memory.fresh() as possible:
    assert possible
    new = faults(8)
print(warm, new, faults(8))
"""


@glibc
@pytest.mark.parametrize("size", [2**20, 2**24, 2**27])
def test_warm_and_fresh(size):
    warm, new, again = map(float, python("-c", PROBE, str(size)).stdout.split())
    pages = 2 * size / PAGE
    assert max(warm, again) < pages / 50
    assert new >= pages * 0.99


@glibc
def test_memory_is_kept_again_after_an_error():
    with pytest.raises(RuntimeError, match="on purpose"), memory.fresh():
        raise RuntimeError("on purpose")
    x = torch.ones(2**22)
    faults = []
    for _ in range(9):  # the first ones may still take free blocks without pages
        before = memory.page_faults()
        x + 1
        faults.append(memory.page_faults() - before)
    assert min(faults) < 100


def test_another_c_library_says_so(monkeypatch):
    monkeypatch.setattr(memory, "_c_library", lambda: object())
    assert not memory.keep_memory()
    with memory.fresh() as possible:
        assert not possible
