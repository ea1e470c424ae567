"""A few thousand groups of the sweep that `python -m tests.numerics` runs over a million."""

import pytest
import torch

from tests.data import DTYPES, name_of, rng
from tests.numerics.whole_range import EXTENDED_IS_LONGER, KINDS, NORMS, epsilons, judge, operands


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
