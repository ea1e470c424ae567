"""The bench of a GPU, as far as it goes without one."""

import json

import pytest
import torch

from normkit import cli
from normkit.bench import cases
from normkit.bench.cases import Case
from normkit.bench.contenders import registry
from tests.process import python


@pytest.fixture(scope="module")
def told():
    pytest.importorskip("triton", reason="Triton is for Linux")
    done = python("-W", "ignore", "-m", "tests.bench.gpu_stand_in", TRITON_INTERPRET="1")
    return json.loads(done.stdout)


def test_right_results_are_timed_over_operands_that_take_turns(told):
    for row in told["bench"]["rows"]:
        for name in ("normkit", "pytorch"):
            entry = row["contenders"][name]
            assert entry["error"] <= 1
            assert entry["warm"]["median"] > 0
        assert row["kernels"]["pytorch"] == ["a_kernel"]
        assert "does not run on cpu" in row["contenders"]["liger"]["unavailable"]
    assert any("as fast as PyTorch" in line for line in told["sentences"])


def test_the_floor_moves_what_it_says(told):
    assert len(told["moved"]) == 21
    assert all(told["moved"].values()), told["moved"]


def test_a_gpu_s_cases_are_past_any_cache():
    shapes = {case.shape for case in cases.full(device="cuda")}
    assert {case.shape for case in cases.full()} < shapes
    for group in ("widths", "images"):
        for shape in cases.parse_shape(group):
            assert shape in shapes
            assert Case("rms_norm", shape, "forward", "bfloat16").tensor_bytes >= 512 << 20


def test_who_takes_part_where():
    assert registry.peers("cpu") == ("pytorch", "inductor", "onnxruntime", "jax")
    assert registry.peers("cuda") == ("pytorch", "inductor", "liger", "quack")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", "--device", "cuda"])
    assert stopped.value.code == 2
    assert "PyTorch finds no GPU" in capsys.readouterr().err
