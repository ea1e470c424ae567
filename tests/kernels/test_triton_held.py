"""The Triton kernels in Triton's interpreter, serving CPU tensors below the public functions."""

import pytest

from tests.process import interpreted

pytest.importorskip("triton", reason="Triton is for Linux")


def test_rows_that_registers_hold_and_batch_norm():
    report = interpreted("--held")
    assert report["failures"] == []
    assert set(report["interpreted"]) >= {
        *("layer_norm", "rms_norm", "row_norm_fwd", "row_norm_bwd"),
        *("batch_norm", "batch_norm_step", "batch_norm_fixed_fwd", "batch_norm_bwd"),
    }
