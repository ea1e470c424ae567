"""The gradients' nodes in C++ do what the Functions in Python do, bit for bit."""

import itertools

import pytest
import torch
from torch._dynamo import compiled_autograd

import normkit  # noqa: F401  loads them
from normkit.ops import _define, _nodes, batch_norm, row_norm
from tests.data import normal

FUNCTIONS = {
    "row_norm": (row_norm.row_norm_with_grad, row_norm.RowNorm),
    "batch_norm_step": (batch_norm.batch_norm_step_with_grad, batch_norm.BatchNormStep),
    "batch_norm_fixed": (batch_norm.batch_norm_fixed_with_grad, batch_norm.BatchNormFixed),
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


@pytest.fixture
def functions(monkeypatch):
    """By name, the node and the Function's call without one."""
    monkeypatch.setattr(_define, "_HAS_NODES", False)
    return {name: (node, _define.with_gradient("", f)) for name, (node, f) in FUNCTIONS.items()}


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


def both(functions, call):
    return functions[AROUND[call][0]]


def test_they_are_built_here_and_load_with_no_other_pytorch(monkeypatch):
    for call in AROUND:
        y = run(FUNCTIONS[AROUND[call][0]][0], call, operands(call))
        assert not isinstance(y.grad_fn, torch.autograd.function.BackwardCFunction)
    monkeypatch.setattr(torch, "__version__", "2.9.0")
    assert not _nodes.load()


@EVERY_CALL
@pytest.mark.parametrize("wanted", WANTED, ids="-".join)
def test_same_bits(wanted, call, functions):
    results = []
    for function in both(functions, call):
        tensors = operands(call, wanted)
        y = run(function, call, tensors)
        y.backward(normal(y.shape, seed="grad"))
        results.append([y, *(None if t is None else t.grad for t in tensors)])
    for node, python in zip(*results, strict=True):
        assert (node is None) == (python is None)
        assert node is None or torch.equal(node, python)
    assert [g is not None for g in results[0][1:]] == [w == "wanted" for w in wanted]


@EVERY_CALL
@pytest.mark.parametrize("wanted", WANTED, ids="-".join)
def test_gradients_can_be_differentiated_again(wanted, call, functions):
    results = []
    for function in both(functions, call):
        tensors = operands(call, wanted)
        asked = [t for t in tensors if t is not None and t.requires_grad]
        grad = normal(tensors[0].shape, seed="grad").requires_grad_()
        first = torch.autograd.grad(run(function, call, tensors), asked, grad, create_graph=True)
        loss = sum(g.square().sum() for g in first)
        again = torch.autograd.grad(loss, [*asked, grad], allow_unused=True)
        results.append([*first, *again])
    for node, python in zip(*results, strict=True):
        assert (node is None) == (python is None)
        assert node is None or torch.equal(node, python)


@EVERY_CALL
def test_nothing_wanted_gives_no_graph(call):
    y = run(FUNCTIONS[AROUND[call][0]][0], call, operands(call, ("present",) * 3))
    assert y.grad_fn is None
    assert not y.requires_grad


@EVERY_CALL
def test_hooks_see_what_is_saved(call, functions):
    seen = []
    for function in both(functions, call):
        shapes = []

        def pack(t, shapes=shapes):
            shapes.append(tuple(t.shape))
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            run(function, call, operands(call)).sum().backward()
        seen.append(sorted(shapes))
    assert seen[0] == seen[1]


@EVERY_CALL
def test_a_change_of_what_is_saved_is_an_error(call):
    tensors = operands(call, ("present", "wanted", "wanted"))
    y = run(FUNCTIONS[AROUND[call][0]][0], call, tensors)
    tensors[0].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@EVERY_CALL
def test_a_second_backward_pass_needs_the_graph_retained(call):
    y = run(FUNCTIONS[AROUND[call][0]][0], call, operands(call))
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="a second time"):
        y.sum().backward()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # PyTorch's own
@EVERY_CALL
def test_compiled_autograd_takes_them(call, functions):
    node, _ = both(functions, call)
    grads = []
    for compiled in (False, True):
        tensors = operands(call)
        loss = run(node, call, tensors).square().sum()
        if compiled:
            with compiled_autograd._enable(torch.compile(backend="eager")):
                loss.backward()
        else:
            loss.backward()
        grads.append([t.grad for t in tensors])
    for plain, compiled in zip(*grads, strict=True):
        assert torch.equal(plain, compiled)
