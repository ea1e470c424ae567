"""The Triton kernels for every chip, compiled with none present: no default launch spills a register."""

import pytest

from tests.kernels.spills import assert_no_default_launch_spills

pytest.importorskip("triton", reason="Triton is for Linux")


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_no_default_launch_spills(target, tmp_path):
    assert_no_default_launch_spills(target, tmp_path)
