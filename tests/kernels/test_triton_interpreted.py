"""The Triton kernels in Triton's interpreter, serving CPU tensors below the public functions."""

from functools import partial

import pytest

from tests.process import sweep

pytest.importorskip("triton", reason="Triton is for Linux")
interpreted = partial(sweep, "--triton", TRITON_INTERPRET="1", PYTHONWARNINGS="ignore")
ROW_NORMS = {"layer_norm", "rms_norm", "row_norm_fwd", "row_norm_bwd"}
BATCH_NORM = {"batch_norm", "batch_norm_step", "batch_norm_fixed_fwd", "batch_norm_bwd"}


@pytest.mark.parametrize(("rows", "served"), [("held", ROW_NORMS | BATCH_NORM), ("in-steps", ROW_NORMS)])
def test_results(rows, served):
    report = interpreted(f"--{rows}")
    assert report["failures"] == []
    assert served <= set(report["interpreted"])
