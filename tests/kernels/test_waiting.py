"""Programs that wait for each other, in Triton's interpreter, side by side."""

import json

import pytest

from tests.process import python

pytest.importorskip("triton", reason="Triton is for Linux")


def test_programs_that_wait_give_the_bits_of_those_that_do_not():
    told = python("-W", "ignore", "-m", "tests.kernels.waiting", timeout=600, TRITON_INTERPRET="1")
    assert json.loads(told.stdout) == []
