"""Likewise, other launches than the usual ones; in a file of its own, as files run side by side."""

import pytest

from tests.process import interpreted

pytest.importorskip("triton", reason="Triton is for Linux")
ROW_NORMS = {"layer_norm", "rms_norm", "row_norm_fwd", "row_norm_bwd"}


def test_rows_in_slabs():
    report = interpreted("--in-slabs")
    assert report["failures"] == []
    assert set(report["interpreted"]) >= ROW_NORMS


def test_programs_that_go_through_several_steps():
    report = interpreted("--in-steps", "--dtype", "float32")
    assert report["failures"] == []
    assert set(report["interpreted"]) >= {*ROW_NORMS, "batch_norm_step", "batch_norm_bwd"}
