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
