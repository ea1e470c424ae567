"""Warm outputs take no new pages and one place, fresh ones new pages only."""

import ctypes
import resource

import pytest
import torch

import normkit as nk
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


def place(tensor):
    return tensor.data_ptr()


def test_a_large_tensor_lies_where_the_last_of_its_size_lay():
    x, w = torch.randn(64, 4096), torch.ones(4096)
    with memory.one_place() as possible:
        assert possible
        first = place(torch.empty(64, 4096))
        torch.empty(64, 4097)
        for norm in (torch.nn.functional.layer_norm, nk.functional.layer_norm) * 3:
            assert place(norm(x, (4096,), w)) == first
        with memory.one_place():
            assert place(torch.empty(64, 4096)) == first
        assert place(torch.empty(64, 4096)) == first
        one, two = torch.empty(64, 4096), torch.empty(64, 4096)
        assert place(one) == first != place(two)


def test_what_outlives_it_is_whole():
    with memory.one_place():
        large, small, none = torch.ones(2**18), torch.ones(3), torch.empty(0)
        grown = torch.ones(2**17).resize_(2**18)
    others = [torch.zeros(2**18) for _ in range(8)]
    assert large.sum() == 2**18
    assert small.sum() == 3
    assert none.numel() == 0
    assert grown[: 2**17].sum() == 2**17
    del large, small, grown, others
    with pytest.raises(RuntimeError, match="on purpose"), memory.one_place():
        raise RuntimeError("on purpose")
    with memory.one_place() as possible:  # is there again
        assert possible
        assert torch.ones(2**18).sum() == 2**18


def test_another_pytorch_has_no_such_place(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.0")
    with memory.one_place() as possible:
        assert not possible


def test_another_c_library_says_so(monkeypatch):
    monkeypatch.setattr(memory, "_c_library", lambda: object())
    assert not memory.keep_memory()
    with memory.fresh() as possible:
        assert not possible
