"""Properties of any finite data, and of data that is not, on examples that Hypothesis finds."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.data import DTYPES, name_of, tensor
from tests.numerics.whole_range import EXTENDED_IS_LONGER, NORMS, judge
from tests.oracle import Operands, run

EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
EVERY_NORM = pytest.mark.parametrize("name", NORMS)
# The same examples each time: a test that fails once in a hundred runs is no help.
FIXED = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@st.composite
def groups_of(draw, dtype, least=1):
    """A few groups of any finite numbers of dtype: (groups, n), n even."""
    largest = float(torch.finfo(dtype).max)
    shape = draw(st.integers(least, 4)), 2 * draw(st.integers(1, 20))
    numbers = st.floats(-largest, largest)
    flat = draw(st.lists(numbers, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    return np.array(flat).reshape(shape)


def laid_out(name, data, dtype):
    """The groups as the norm finds them in a tensor."""
    if name == "BatchNorm, planar":
        data = np.moveaxis(data.reshape(len(data), 2, -1), 0, 1)
    elif name == "BatchNorm, interleaved":
        data = data.T
    return tensor(data, dtype)


@EVERY_DTYPE
@EVERY_NORM
@FIXED
@given(data=st.data())
def test_any_finite_data(name, dtype, data):
    assume(dtype != torch.float64 or EXTENDED_IS_LONGER)
    x = data.draw(groups_of(dtype))
    parameters = len(x) if name.startswith("BatchNorm") else x.shape[1]
    r = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    weight, bias = (tensor(r.standard_normal(parameters), dtype) for _ in range(2))
    grad = r.standard_normal(x.shape)
    norm = NORMS[name](data.draw(st.sampled_from([0.0, 1e-5, 1.0])))
    o = Operands(laid_out(name, x, dtype), weight, bias, laid_out(name, grad, dtype))
    verdict = judge(norm.ours, norm, o)
    assert verdict.not_finite == verdict.wrong == 0, verdict


@EVERY_DTYPE
@EVERY_NORM
@FIXED
@given(data=st.data())
def test_no_group_sees_another(name, dtype, data):
    """Whatever stands in the other groups, a group's output and input gradient have the same bits."""
    x = data.draw(groups_of(dtype, least=2))
    r = np.random.default_rng(0)
    grad = laid_out(name, r.standard_normal(x.shape), dtype)
    norm = NORMS[name](1e-5)
    other = x.copy()
    other[0, data.draw(st.integers(0, x.shape[1] - 1))] = data.draw(
        st.sampled_from([np.nan, np.inf, -np.inf, 0.0, float(torch.finfo(dtype).max)])
    )
    a, b = (run(norm.ours, Operands(laid_out(name, v, dtype), None, None, grad)) for v in (x, other))
    for one, two in ((a.output, b.output), (a.grad_input, b.grad_input)):
        rest_of_one, rest_of_two = (norm.grouped(t.double().numpy())[1:] for t in (one, two))
        np.testing.assert_array_equal(rest_of_one, rest_of_two)


@EVERY_NORM
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=name_of)
@FIXED
@given(power=st.integers(-400, 400), data=st.data())
def test_eps_keeps_its_meaning_when_data_is_rescaled(name, dtype, power, data):
    """x 2^k with eps 4^k is x with eps, and so is the output."""
    power = power if dtype == torch.float64 else power // 8
    x = np.random.default_rng(data.draw(st.integers(0, 1000))).standard_normal((3, 24))
    bare = Operands(laid_out(name, x, dtype), None, None, None)
    eps = data.draw(st.sampled_from([0.0, 1e-5, 1.0]))
    scaled = eps * 2.0**power if "outside" in name else eps * 4.0**power
    y = NORMS[name](eps).ours(bare.x)
    z = NORMS[name](scaled).ours(bare.x * 2.0**power)
    unit = torch.finfo(dtype).eps * float(y.abs().max())
    torch.testing.assert_close(z, y, rtol=0, atol=(8 if dtype == torch.float32 else 16) * unit)
