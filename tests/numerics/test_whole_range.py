"""A few thousand groups of the sweep that `python -m tests.numerics` runs over a million."""

import numpy as np
import pytest
import torch

from tests.data import DTYPES, name_of, rng, tensor
from tests.numerics.whole_range import (
    EXTENDED,
    EXTENDED_IS_LONGER,
    KINDS,
    NORMS,
    epsilons,
    exponents,
    judge,
    limit,
    operands,
)
from tests.oracle import Operands, RowNorm, errors, run


def needs_an_oracle(dtype):
    """Of float64 there is none where the C library has nothing longer, as on ARM's macOS."""
    if dtype == torch.float64 and not EXTENDED_IS_LONGER:
        pytest.skip("no arithmetic here holds the square of every float64")


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NORMS)
def test_finite_in_finite_and_right_out(name, kind, dtype):
    needs_an_oracle(dtype)
    for width in (38, 300):
        for eps in epsilons(dtype):
            norm = NORMS[name](eps)
            o = operands(rng(name, kind, width, eps), name, kind, 24, width, dtype)
            verdict = judge(norm.ours, norm, o)
            assert verdict.not_finite == verdict.wrong == 0, (width, eps, verdict)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("name", NORMS)
def test_no_upstream_gradient_is_no_gradient(name, dtype):
    """Zeros, too, of a row whose rstd the dtype does not hold."""
    for kind in KINDS:
        for eps in epsilons(dtype):
            norm = NORMS[name](eps)
            o = operands(rng(name, kind, eps), name, kind, 24, 38, dtype)
            o = o._replace(grad_output=torch.zeros_like(o.grad_output))
            grad = norm.grouped(run(norm.ours, o).grad_input.double().numpy())
            with np.errstate(all="ignore"):
                rstd = norm.statistics(o, EXTENDED)[1][:, 0]
            assert not grad[np.isfinite(rstd)].any(), (kind, eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=name_of)
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("name", NORMS)
def test_products_too_small_for_the_dtype(name, share, dtype):
    """x times its gradient has no room, x_hat times it has; also of one spike among zeros."""
    needs_an_oracle(dtype)
    norm, low = NORMS[name](1e-5), exponents(dtype)[0]
    for kind in ("one scale", "one spike among zeros"):
        for above in (0, 4, 8):
            o = operands(rng(name, kind, share, above), name, kind, 24, 38, dtype)
            x = torch.ldexp(o.x.frexp().mantissa, torch.tensor(int(low * share)))
            grad = torch.ldexp(o.grad_output.frexp().mantissa, torch.tensor(int(low * (1 - share)) + above))
            verdict = judge(norm.ours, norm, o._replace(x=x, grad_output=grad))
            assert verdict.not_finite == verdict.wrong == 0, (kind, above, verdict)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("name", NORMS)
def test_a_weight_of_zeros_still_has_a_gradient(name, dtype):
    """As where training begins with one; of data of any scale."""
    needs_an_oracle(dtype)
    for kind in KINDS:
        for eps in epsilons(dtype):
            norm = NORMS[name](eps)
            o = operands(rng(name, kind, eps), name, kind, 24, 38, dtype)
            verdict = judge(norm.ours, norm, o._replace(weight=torch.zeros_like(o.weight)))
            assert verdict.not_finite == verdict.wrong == 0, (kind, eps, verdict)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=name_of)
@pytest.mark.parametrize("offset", [10, 200, 1000, 3000])
def test_a_gain_of_halves_next_to_the_mean(offset, dtype):
    """Where it is all there is, the output is right though rounding the mean loses more than it is."""
    r, norm = rng(offset, dtype), RowNorm("layer_norm")
    rows = [[offset - 1, offset, offset + 1]]  # the mean is one of them
    rows += [list(row) for row in offset + r.standard_normal((24, 768)) * max(1, offset / 100)]
    for row in rows:
        x = tensor(np.array([row]), dtype)
        weight = torch.zeros(x.shape[1])
        weight[(x.double() - x.double().mean()).abs().argmin()] = 1
        o = Operands(x, weight, None, tensor(r.standard_normal(x.shape), dtype))
        off = errors(norm, o, run(norm.ours, o), EXTENDED)
        assert off["output"].max() <= limit("output", dtype)


@pytest.mark.parametrize("name", ["BatchNorm, planar", "BatchNorm, interleaved"])
def test_a_weight_that_rstd_makes_vanish(name):
    """It is not zero, and the upstream gradient may be as large as it is small."""
    needs_an_oracle(torch.float64)
    norm = NORMS[name](0.0)
    o = operands(rng(name), name, "one scale", 24, 38, torch.float64)
    x = torch.ldexp(o.x.frexp().mantissa, torch.tensor(419))  # rstd is 1e-126
    grad = torch.ldexp(o.grad_output.frexp().mantissa, torch.tensor(900))
    o = o._replace(x=x, weight=o.weight * 1e-244, grad_output=grad)
    verdict = judge(norm.ours, norm, o)
    assert verdict.groups == 24
    assert verdict.not_finite == verdict.wrong == 0
