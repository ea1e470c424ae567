"""Likewise, for further chips; in a file of its own, as files run side by side."""

import pytest

from tests.kernels.spills import assert_no_default_launch_spills

pytest.importorskip("triton", reason="Triton is for Linux")


@pytest.mark.parametrize("target", ["sm_100", "gfx942"])
def test_no_default_launch_spills(target, tmp_path):
    assert_no_default_launch_spills(target, tmp_path)
