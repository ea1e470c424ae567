"""The Triton kernels in Triton's interpreter, serving CPU tensors below the public functions."""

from functools import partial

import pytest

from tests.process import sweep

pytest.importorskip("triton", reason="Triton is for Linux")
interpreted = partial(sweep, "--triton", TRITON_INTERPRET="1", PYTHONWARNINGS="ignore")


@pytest.mark.parametrize("rows", ["held", "in-steps"])
def test_results(rows):
    report = interpreted(f"--{rows}")
    assert report["failures"] == []
    assert {"layer_norm", "rms_norm", "row_norm_fwd", "row_norm_bwd"} <= set(report["interpreted"])
    assert {"batch_norm", "batch_norm_step", "batch_norm_fixed_fwd", "batch_norm_bwd"} <= set(
        report["interpreted"]
    )
