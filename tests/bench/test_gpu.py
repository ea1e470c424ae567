"""The bench of a GPU, as far as it goes without one."""

import dataclasses
import importlib.util
import json
import time

import pytest
import torch

from normkit import cli
from normkit.bench import cases
from normkit.bench.cases import Case
from normkit.bench.contenders import registry
from tests.process import ROOT, python

from .conftest import MACHINE, make_row


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


def test_tuning_writes_a_table_that_reads_as_what_it_found(told):
    found = {}
    exec(told["table"], found)
    keys = [("a_chip", which, 4, 64) for which in ("backward", "forward")]
    assert list(found["TUNED"]) == keys
    assert [list(found["TUNED"][key]) for key in reversed(keys)] == told["tuned"]


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


@pytest.fixture
def gpu_check():
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "benchmarks" / "gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_most_telling_cases_come_first_and_each_once(gpu_check):
    told = gpu_check.todo()
    assert len(set(told)) == len(told)
    assert told[:2] == [Case("rms_norm", (65536, 4096), d, "bfloat16") for d in ("forward", "backward")]
    for shape in cases.GROUPS["widths"]:
        found = {(c.op, c.direction, c.dtype) for c in told if c.shape == shape}
        assert len(found) == 8
    assert {c.shape for c in told if c.op == "batch_norm_training"} == set(cases.GROUPS["images"])


@pytest.mark.parametrize(("seconds", "complete"), [(60, True), (0, False)])
def test_the_check_stops_in_time_and_says_so(gpu_check, monkeypatch, seconds, complete):
    pytest.importorskip("triton", reason="Triton is for Linux")
    from normkit.bench.gpu import measure

    monkeypatch.setattr(measure, "measure", lambda case, *arguments: make_row(case))
    few = [Case("rms_norm", (8, 32), "forward"), Case("layer_norm", (8, 32), "forward")]
    monkeypatch.setattr(gpu_check, "todo", lambda: few)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    saved = []
    on_gpu = dataclasses.replace(MACHINE, device="cuda")
    bench = gpu_check.run_bench(on_gpu, (), time.monotonic() + seconds, saved.append)
    assert bench.complete is complete
    assert [len(each.rows) for each in saved] == ([1, 2] if complete else [])
    assert [each.complete for each in saved] == ([False, True] if complete else [])


def test_the_host_s_time_is_that_of_a_call_but_the_first_ones(gpu_check, monkeypatch):
    clock = [0.0]  # of seconds
    waits = []

    def call(first, later):
        clock[0] += later if waits else first
        waits.append(None)

    monkeypatch.setattr(torch.cuda, "synchronize", waits.clear)
    monkeypatch.setattr(gpu_check.time, "perf_counter", lambda: clock[0])
    calls = {"short": lambda: call(1.0, 2e-6), "long": lambda: call(1.0, 3e-6)}
    assert gpu_check.microseconds(calls, times=10, rounds=3) == {"short": 2.0, "long": 3.0}
