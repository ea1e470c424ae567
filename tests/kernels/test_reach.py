"""The core reads nothing behind a tensor's last element."""

import sys

import pytest

from normkit.kernels import cpu
from tests.process import python

# Tensors that end where a page ends, and the next one can't be read: who does is killed.
AT_THE_END = """
import ctypes, mmap, torch, normkit as nk

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
maps = []

def at_the_end(t):
    pages = mmap.mmap(-1, (t.nbytes + PAGE - 1) // PAGE * PAGE + PAGE)
    maps.append(pages)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    assert libc.mprotect(ctypes.c_void_p(start + len(pages) - PAGE), PAGE, 0) == 0
    offset = len(pages) - PAGE - t.nbytes
    return torch.frombuffer(pages, dtype=t.dtype, count=t.numel(), offset=offset).view(t.shape).copy_(t)

def leaf(t):
    return at_the_end(t).requires_grad_()

for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
    for n in (1, 7, 8, 12, 24, 33, 56, 59, 200):
        numbers = torch.rand(4, n).to(torch.float64 if dtype == torch.float64 else torch.float32)
        weight, bias, mean, var = map(at_the_end, numbers)
        weight.requires_grad_(), bias.requires_grad_()
        for shape in ((5, n), (300, n), (5, n, 3), (20, n, 17)):
            x, g = leaf(torch.randn(shape).to(dtype)), at_the_end(torch.randn(shape).to(dtype))
            for training in (True, False):
                y = nk.functional.batch_norm(x, mean, var, weight, bias, training=training)
                torch.autograd.grad(y, (x, weight, bias), g)
        for rows in (1, 5, 300):
            x, g = leaf(torch.randn(rows, n).to(dtype)), at_the_end(torch.randn(rows, n).to(dtype))
            for function in (nk.functional.layer_norm, nk.functional.rms_norm):
                affine = (weight, bias) if function is nk.functional.layer_norm else (weight,)
                y = function(x, (n,), *affine)
                torch.autograd.grad(y, (x, *affine), g)
    maps.clear()
print("done")
"""


@pytest.mark.skipif(cpu.why_not is not None, reason=f"no C++ core: {cpu.why_not}")
@pytest.mark.skipif(sys.platform != "linux", reason="protects a page of memory")
@pytest.mark.parametrize("bound", ["0", "unset"])
def test_nothing_is_read_behind_the_end(bound):
    assert "done" in python("-W", "ignore", "-c", AT_THE_END, NORMKIT_CACHE_BYTES=bound).stdout
