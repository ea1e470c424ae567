"""The gradients' nodes in C++ do what the Functions in Python do, bit for bit."""

import itertools
from importlib.machinery import EXTENSION_SUFFIXES

import pytest
import torch
from torch._dynamo import compiled_autograd

import normkit.ops
from normkit.ops import _compiled, batch_norm, row_norm
from tests.data import normal

NODES = {
    "row_norm": row_norm.row_norm_with_grad,
    "batch_norm_step": batch_norm.batch_norm_step_with_grad,
    "batch_norm_fixed": batch_norm.batch_norm_fixed_with_grad,
}
FUNCTIONS = {
    "row_norm": row_norm.RowNorm,
    "batch_norm_step": batch_norm.BatchNormStep,
    "batch_norm_fixed": batch_norm.BatchNormFixed,
}
# What stands around weight and bias: before them, and after.
AROUND = {
    "layer norm": ("row_norm", (), (1e-5, True)),
    "rms norm, two dimensions": ("row_norm", (), (None, False, 2, True, 0.5)),
    "training": ("batch_norm_step", (), (1e-5, None, None, None, 0.1)),
    "inference": ("batch_norm_fixed", ("mean", "var"), (1e-5,)),
}
EVERY_CALL = pytest.mark.parametrize("call", AROUND)
# Of input, weight and bias: absent, present, or a gradient wanted.
WANTED = [
    wanted
    for wanted in itertools.product(("wanted", "present"), *[("wanted", "present", "absent")] * 2)
    if "wanted" in wanted
]


def operands(call, wanted=("wanted",) * 3):
    shape = (3, 5) if "two" in call else (5,)
    tensors = normal((4, *shape)), normal(shape, seed="weight"), normal(shape, seed="bias")
    return [
        None if w == "absent" else t.clone().requires_grad_(w == "wanted")
        for t, w in zip(tensors, wanted, strict=True)
    ]


def run(function, call, tensors):
    x, weight, bias = tensors
    statistics = {"mean": normal((5,), seed="mean"), "var": normal((5,), seed="var").square()}
    _, before, after = AROUND[call]
    return function(x, *(statistics[b] for b in before), weight, bias, *after)


def node_of(call):
    return NODES[AROUND[call][0]]


def both(call):
    """The node, and the Function without one."""
    return node_of(call), FUNCTIONS[AROUND[call][0]].apply


def assert_same_bits(found, expected):
    """Of two lists of tensors, or None where there is none."""
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


class Nothing(torch.autograd.Function):
    """What has no gradient, not even zeros."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return None


@EVERY_CALL
def test_they_are_built_here_and_have_names(call):
    y = run(node_of(call), call, operands(call))
    assert not isinstance(y.grad_fn, torch.autograd.function.BackwardCFunction)
    assert f"grad_fn=<{FUNCTIONS[AROUND[call][0]].__name__}Backward>" in repr(y)


def test_no_other_pytorch_loads_them(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "__version__", "2.9.0")
    assert _compiled.load() is None
    monkeypatch.setattr(normkit.ops, "__path__", [tmp_path])
    (tmp_path / f"_eager-2.9.0{EXTENSION_SUFFIXES[0]}").write_bytes(b"no library")
    with pytest.warns(RuntimeWarning, match=r"small inputs take longer.*_eager-2\.9\.0"):
        assert _compiled.load() is None


@EVERY_CALL
@pytest.mark.parametrize("wanted", WANTED, ids="-".join)
def test_same_bits(wanted, call):
    results = []
    for function in both(call):
        tensors = operands(call, wanted)
        y = run(function, call, tensors)
        y.backward(normal(y.shape, seed="grad"))
        results.append([y, *(None if t is None else t.grad for t in tensors)])
    assert_same_bits(*results)
    assert [g is not None for g in results[0][1:]] == [w == "wanted" for w in wanted]


@EVERY_CALL
@pytest.mark.parametrize("wanted", WANTED, ids="-".join)
def test_gradients_can_be_differentiated_again(wanted, call):
    results = []
    for function in both(call):
        tensors = operands(call, wanted)
        asked = [t for t in tensors if t is not None and t.requires_grad]
        grad = normal(tensors[0].shape, seed="grad").requires_grad_()
        first = torch.autograd.grad(run(function, call, tensors), asked, grad, create_graph=True)
        loss = sum(g.square().sum() for g in first)
        again = torch.autograd.grad(loss, [*asked, grad], allow_unused=True)
        results.append([*first, *again])
    assert_same_bits(*results)


@EVERY_CALL
def test_nothing_wanted_gives_no_graph(call):
    y = run(node_of(call), call, operands(call, ("present",) * 3))
    assert y.grad_fn is None
    assert not y.requires_grad


@EVERY_CALL
def test_an_undefined_gradient_is_zero(call):
    grads = []
    for function in both(call):
        tensors = operands(call)
        y = Nothing.apply(run(function, call, tensors))
        y.backward(normal(y.shape, seed="grad"))
        grads.append([t.grad for t in tensors])
    assert_same_bits(*grads)
    assert not any(g.any() for g in grads[0])


@pytest.mark.filterwarnings("ignore:Using backward")  # with a graph: it is dropped with the tensors
@EVERY_CALL
def test_what_no_longer_wants_a_gradient_gets_none(call):
    for function in both(call):
        x, weight, bias = operands(call)
        y = run(function, call, (x, weight, bias))
        weight.requires_grad_(False)
        y.backward(normal(y.shape, seed="grad").requires_grad_(), create_graph=True)
        assert weight.grad is None
        assert x.grad.requires_grad


@EVERY_CALL
def test_below_autograd_there_is_no_graph(call):
    tensors = operands(call)
    with torch._C._AutoDispatchBelowAutograd():
        y = run(node_of(call), call, tensors)
    assert y.grad_fn is None
    assert torch.equal(y, run(node_of(call), call, tensors))


@EVERY_CALL
def test_hooks_keep_what_is_saved(call):
    counts, grads = [], []
    for function in both(call):
        saved, tensors = [], operands(call)

        def pack(t, saved=saved):
            saved.append(t.detach())
            return len(saved) - 1

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda i, saved=saved: 2 * saved[i]):
            y = run(function, call, tensors)
        y.backward(normal(y.shape, seed="grad"))
        counts.append(len(saved))
        grads.append([t.grad for t in tensors])
    assert counts[0] == counts[1]
    assert_same_bits(*grads)


@EVERY_CALL
def test_a_change_of_what_is_saved_is_an_error(call):
    tensors = operands(call, ("present", "wanted", "wanted"))
    y = run(node_of(call), call, tensors)
    tensors[0].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward(normal(y.shape, seed="grad"))


@EVERY_CALL
def test_a_second_backward_pass_needs_the_graph_retained(call):
    tensors = operands(call)
    y = run(node_of(call), call, tensors)
    grad = normal(y.shape, seed="grad")
    y.backward(grad, retain_graph=True)
    once = [t.grad.clone() for t in tensors]
    y.backward(grad)
    assert_same_bits([t.grad for t in tensors], [2 * g for g in once])
    with pytest.raises(RuntimeError, match="a second time"):
        y.backward(grad)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # PyTorch's own
@EVERY_CALL
@pytest.mark.parametrize(
    "wanted", [("wanted",) * 3, ("wanted", "absent", "wanted"), ("present", "wanted", "absent")], ids="-".join
)
def test_compiled_autograd_takes_them(wanted, call):
    graphs, grads = [], []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    for compiled in (False, True):
        tensors = operands(call, wanted)
        y = run(node_of(call), call, tensors)
        grad = normal(y.shape, seed="grad")
        if compiled:
            with compiled_autograd._enable(torch.compile(backend=backend)):
                y.backward(grad)
        else:
            y.backward(grad)
        grads.append([None if t is None else t.grad for t in tensors])
    assert graphs
    assert_same_bits(*grads)
