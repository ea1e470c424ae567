"""A few thousand groups of the sweep that `python -m tests.numerics` runs over a million."""

import numpy as np
import pytest
import torch

from tests.data import DTYPES, name_of, rng
from tests.numerics.whole_range import (
    EXTENDED,
    EXTENDED_IS_LONGER,
    KINDS,
    NORMS,
    epsilons,
    exponents,
    judge,
    operands,
)
from tests.oracle import run


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NORMS)
def test_finite_in_finite_and_right_out(name, kind, dtype):
    if dtype == torch.float64 and not EXTENDED_IS_LONGER:
        pytest.skip("no arithmetic here holds the square of every float64")
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
    if dtype == torch.float64 and not EXTENDED_IS_LONGER:
        pytest.skip("no arithmetic here holds the square of every float64")
    norm, low = NORMS[name](1e-5), exponents(dtype)[0]
    for kind in ("one scale", "one spike among zeros"):
        for above in (0, 4, 8):
            o = operands(rng(name, kind, share, above), name, kind, 24, 38, dtype)
            x = torch.ldexp(o.x.frexp().mantissa, torch.tensor(int(low * share)))
            grad = torch.ldexp(o.grad_output.frexp().mantissa, torch.tensor(int(low * (1 - share)) + above))
            verdict = judge(norm.ours, norm, o._replace(x=x, grad_output=grad))
            assert verdict.not_finite == verdict.wrong == 0, (kind, above, verdict)
