"""Likewise, rows that registers do not hold; in a file of its own, as files run side by side."""

import pytest

from tests.process import interpreted

pytest.importorskip("triton", reason="Triton is for Linux")


def test_rows_in_slabs():
    report = interpreted("--in-slabs")
    assert report["failures"] == []
    assert set(report["interpreted"]) >= {"layer_norm", "rms_norm", "row_norm_fwd", "row_norm_bwd"}
