"""Every contender computes the case it is timed on."""

import importlib.util
import sys

import pytest
import torch

from normkit.bench import contenders, operands
from normkit.bench.cases import Case
from normkit.bench.check import worst_error


def error_of(name, case):
    made = operands.make_operands(case)
    wanted = operands.exact(case)
    with torch.inference_mode(mode=case.direction == "forward"):
        ready = contenders.prepare(name, case, made, threads=2)
        error = worst_error(case, ready.results(), wanted)
        ready.call()
        ready.call()
    return error


@pytest.mark.parametrize("name", ["normkit", "pytorch"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("direction", ["forward", "forward+backward", "backward"])
@pytest.mark.parametrize("op", ["rms_norm", "layer_norm", "batch_norm_training", "batch_norm_inference"])
def test_on_pytorch(name, op, direction, dtype):
    shape = (16, 48) if op in ("rms_norm", "layer_norm") else (4, 6, 5, 5)
    for channels_last in (False, True) if len(shape) == 4 else (False,):
        assert error_of(name, Case(op, shape, direction, dtype, channels_last)) <= 1


@pytest.mark.parametrize("direction", ["forward+backward", "backward"])
def test_compiled(direction):
    assert error_of("inductor", Case("layer_norm", (16, 48), direction)) <= 1


def test_what_does_not_compile_says_why(monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("no compiler here\nand more")

    import torch._dynamo

    monkeypatch.setattr(torch, "compile", lambda function, dynamic: refuse)
    with pytest.raises(contenders.Unavailable, match=r"^failed to compile: no compiler here$"):
        error_of("inductor", Case("rms_norm", (16, 48), "forward"))


@pytest.mark.parametrize("op", ["rms_norm", "layer_norm", "batch_norm_inference"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_onnx_runtime(op, dtype):
    shape = (16, 48) if op in ("rms_norm", "layer_norm") else (4, 6, 5, 5)
    assert error_of("onnxruntime", Case(op, shape, "forward", dtype)) <= 1


def test_onnx_runtime_on_halves():
    assert error_of("onnxruntime", Case("layer_norm", (16, 48), "forward", "bfloat16")) <= 1
    with pytest.raises(contenders.Unavailable, match="no BatchNormalization for bfloat16"):
        error_of("onnxruntime", Case("batch_norm_inference", (4, 6, 5, 5), "forward", "bfloat16"))


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case("layer_norm", (16, 48), "forward+backward"), "inference only"),
        (Case("batch_norm_training", (4, 6, 5, 5), "forward"), "inference only"),
        (Case("batch_norm_inference", (4, 6, 5, 5), "forward", channels_last=True), "no channels-last"),
    ],
)
def test_what_onnx_runtime_does_not_do(case, reason):
    with pytest.raises(contenders.Unavailable, match=reason):
        error_of("onnxruntime", case)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("op", ["rms_norm", "layer_norm", "batch_norm_training", "batch_norm_inference"])
def test_jax(op, direction):
    shape = (16, 48) if op in ("rms_norm", "layer_norm") else (4, 6, 5, 5)
    for dtype in ("float32", "bfloat16", "float64"):
        for channels_last in (False, True) if len(shape) == 4 else (False,):
            assert error_of("jax", Case(op, shape, direction, dtype, channels_last)) <= 1


def test_who_is_not_installed_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "normkit.bench.contenders.jax_jit", raising=False)
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(contenders.Unavailable, match=r"^jax is not installed$"):
        error_of("jax", Case("rms_norm", (16, 48), "forward"))


def test_running_statistics_are_each_contender_s_own():
    case = Case("batch_norm_training", (4, 6, 5, 5), "forward")
    made = operands.make_operands(case)
    before = made.running_mean.clone()
    for name in ("normkit", "pytorch"):
        ready = contenders.prepare(name, case, made, threads=2)
        assert worst_error(case, ready.results(), operands.exact(case)) <= 1
    assert torch.equal(made.running_mean, before)
