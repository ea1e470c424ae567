"""What kernels in Python refuse themselves: the core's own checks are in C++."""

import pytest
import torch

from normkit.kernels.pytorch.batch_norm import check_channels
from normkit.kernels.pytorch.row_norm import check_rows


def of_rows(x, p, eps):
    check_rows(x, p, p, eps, 1)


def of_channels(x, p, eps):
    check_channels(x, p, p, eps=eps)


@pytest.mark.parametrize("check", [of_rows, of_channels])
def test_a_kernel_in_python_refuses_what_the_core_does(check):
    x, p = torch.ones(2, 3), torch.ones(3)
    check(x, p, 0.0)
    check(x, p.double(), 1e-5)
    for eps in (-1e-5, float("nan")):
        with pytest.raises(RuntimeError, match="eps"):
            check(x, p, eps)
    for wrong in ((x.int(), p), (x, p.long()), (x, p.bool())):
        with pytest.raises(RuntimeError, match="must be float64"):
            check(*wrong, 1e-5)
    for wrong in (torch.ones(4), torch.ones(3).to_sparse(), torch.ones(3, device="meta")):
        with pytest.raises(RuntimeError, match="normkit"):
            check(x, wrong, 1e-5)
