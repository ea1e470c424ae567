"""Any strides at all, over storage that ends with the last element: for AddressSanitizer, too."""

import pytest
import torch

from tests.data import DTYPES, name_of, normal, rng
from tests.operands import every_norm, operands
from tests.oracle import BatchNorm, assert_right, run

CASES = 40
# A stride of 0 repeats a term, whose roundings then do not average out: no sum has many.
MOST_ROWS = 128


def strided(r, shape, dtype):
    """A view with strides taken at random, windows that overlap and repeated elements among them."""
    dense = torch.empty(shape).stride()
    choices = [(0, 1, 2, int(r.integers(1, 20)), own, shape[-1], shape[0]) for own in dense]
    strides = [int(r.choice(c)) for c in choices]
    offset = int(r.integers(0, 9))
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return normal((offset + last + 1,), dtype, "storage").as_strided(shape, strides, offset)


def shape_of(r, norm):
    while True:
        shape = tuple(int(n) for n in r.choice([1, 2, 3, 5, 8, 16, 33, 64], int(r.integers(2, 5))))
        values = torch.Size(shape).numel()
        group = shape[1] if isinstance(norm, BatchNorm) else shape[-1]
        if 1 < values // group <= MOST_ROWS:
            return shape


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("which", range(5))
def test_any_strides(which, dtype):
    r = rng("strides", which, str(dtype))
    views = 0
    for _ in range(CASES):
        shape = shape_of(r, every_norm(1, dtype)[which])
        norm = every_norm(shape[1], dtype)[which]
        o = operands(norm, shape, dtype)
        o = o._replace(x=strided(r, shape, dtype), grad_output=strided(r, shape, dtype))
        views += not o.x.is_contiguous()
        assert_right(norm, o, run(norm.ours, o), f"{shape}, {o.x.stride()}, {o.grad_output.stride()}")
    assert views > CASES / 2
