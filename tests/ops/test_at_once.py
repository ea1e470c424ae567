"""A call in inference that goes to its kernel at once: when it does, and who still sees the operator."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import profiler
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import normkit as nk
from normkit.kernels import gpu
from normkit.ops import batch_norm as channels
from normkit.ops import row_norm as rows
from normkit.ops._define import at_once

X, W = torch.randn(4, 8), torch.randn(8)
OPERATORS = {
    rows.layer_norm: (X, W, None, 1e-5),
    rows.rms_norm: (X, torch.nn.Parameter(W), W, None, 1, True, 1.0),
    channels.batch_norm: (X, W, W.abs(), None, W, 1e-5),
}
EVERY_OPERATOR = pytest.mark.parametrize("operator", OPERATORS, ids=str)


kernel_of = gpu.kernel_of


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """Stand in for those of a GPU: the names of the operators whose kernels were called at once."""
    called = []

    def stand_in_of(name, fallback):
        def kernel(*arguments):
            called.append(name)
            return fallback(*arguments)

        return kernel

    monkeypatch.setattr(gpu, "kernel_of", stand_in_of)
    return called


@EVERY_OPERATOR
def test_a_plain_call_goes_to_the_kernel(operator, kernels):
    call = at_once(operator)
    with torch.inference_mode():
        for _ in range(2):
            assert torch.equal(call(*OPERATORS[operator]), operator(*OPERATORS[operator]))
    assert kernels == 2 * [operator._opname]


class Dispatched(TorchDispatchMode):
    """Lists the operators that it is shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.shown.append(function)
        return function(*args, **(kwargs or {}))


class Called(TorchFunctionMode):
    """Likewise."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.shown.append(function)
        return function(*args, **(kwargs or {}))


@EVERY_OPERATOR
@pytest.mark.parametrize("mode", [Dispatched, Called])
def test_a_mode_is_shown_the_operator(operator, mode, kernels):
    with mode() as active:
        at_once(operator)(*OPERATORS[operator])
    assert len(active.shown) == 1
    assert operator._opname in str(active.shown[0])
    assert kernels == []


def test_a_profile_has_the_operator(kernels):
    with torch.no_grad(), profiler.profile() as profile:
        at_once(rows.layer_norm)(X, W, None, 1e-5)
    assert "normkit::layer_norm" in {event.name for event in profile.function_events}
    assert kernels == []


@pytest.mark.filterwarnings("ignore:`torch.jit.trace`")
def test_a_trace_has_the_operator(kernels):
    traced = torch.jit.trace(lambda x: at_once(rows.layer_norm)(x, W, None, 1e-5), (X,), check_trace=False)
    assert "normkit::layer_norm" in str(traced.graph)
    assert kernels == []


def test_a_transformation_is_the_dispatchers(kernels):
    y = torch.vmap(lambda x: at_once(rows.layer_norm)(x, W, None, 1e-5))(X[None])
    assert torch.equal(y[0], rows.layer_norm(X, W, None, 1e-5))
    assert kernels == []


class Sub(torch.Tensor):
    """A subclass."""


def negated(t):
    return torch._neg_view(-t)


def zeros(t):
    return torch._efficientzerotensor(t.shape)


@pytest.mark.parametrize("stand_in", [Sub, negated, zeros])
@pytest.mark.parametrize("place", range(3))
def test_what_is_not_quite_a_tensor_is_the_dispatchers(stand_in, place, kernels):
    arguments, same = [X, W, W], [X, W, W]
    arguments[place] = stand_in(arguments[place])
    if stand_in is zeros:
        same[place] = torch.zeros_like(same[place])
    y = at_once(rows.layer_norm)(*arguments, 1e-5)
    assert type(y) is (Sub if stand_in is Sub else torch.Tensor)
    torch.testing.assert_close(y.as_subclass(torch.Tensor), rows.layer_norm(*same, 1e-5))
    assert kernels == []


def test_what_is_not_quite_a_number_is_the_dispatchers(kernels):
    at_once(rows.layer_norm)(X, W, None, torch.tensor(1e-5))
    with pytest.raises(RuntimeError, match="eps"):
        at_once(rows.layer_norm)(X, W, None, "1e-5")
    assert kernels == []


def test_a_fake_tensor_of_a_gpu_is_the_dispatchers(monkeypatch, kernels):
    monkeypatch.setattr(gpu, "arrived", True)
    with FakeTensorMode():
        x, w = torch.empty(4, 8, device="cuda"), torch.empty(8, device="cuda")
    assert x.is_cuda
    for y in (
        nk.functional.layer_norm(x, (8,), w),
        nk.functional.rms_norm(x, (8,), w),
        nk.functional.batch_norm(x, w, w),
    ):
        assert (y.shape, y.device.type) == ((4, 8), "cuda")
    assert kernels == []


def test_the_functions_ask_for_it_where_a_gpu_tensor_has_arrived(monkeypatch):
    asked = []
    monkeypatch.setattr(rows, "rms_norm_at_once", lambda *arguments: asked.append(arguments))
    with FakeTensorMode():
        x = torch.empty(4, 8, device="cuda")
    nk.functional.rms_norm(x, (8,))
    assert asked == []
    monkeypatch.setattr(gpu, "arrived", True)
    nk.functional.rms_norm(x, (8,), None, 1e-5)
    nk.functional.rms_norm(X, (8,), None, 1e-5)
    assert asked == [(x, None, None, 1e-5)]


def test_a_kernel_that_is_looked_for_says_that_a_gpu_tensor_has_arrived(monkeypatch):
    pytest.importorskip("triton", reason="Triton is for Linux")
    monkeypatch.setattr(gpu, "arrived", False)
    with monkeypatch.context() as without:
        without.setattr(gpu, "why_not", lambda kind: "Triton is not installed")
        assert kernel_of("rms_norm", "fallback") == "fallback"
        assert not gpu.arrived
    assert kernel_of("rms_norm", "fallback").__name__ == "rms_norm"
    assert gpu.arrived


def test_the_compiler_is_shown_the_operator(monkeypatch, kernels):
    monkeypatch.setattr(gpu, "arrived", True)
    graphs = []

    def backend(graph, _):
        graphs.append(str(graph.graph))
        return graph

    with torch.no_grad():
        torch.compile(nk.functional.rms_norm, backend=backend, fullgraph=True)(X, (8,), W)
    assert "normkit.rms_norm" in graphs[0]
    assert kernels == []


def test_the_kernel_refuses_what_the_dispatcher_would_have():
    triton = pytest.importorskip("normkit.kernels.triton.row_norm", reason="Triton is for Linux")
    with pytest.raises(RuntimeError, match="eps"):
        triton.layer_norm(X, W, None, None)
