"""What is written down to run elsewhere: `torch.export`, `torch.jit.trace`, `torch.fx`.

The first two hold PyTorch's own operators only, so what they give runs where normkit is not.
"""

import pytest
import torch
from torch.export import Dim

import normkit as nk
from tests.process import python

from .models import EVERY, MODES, assert_near, assert_same_state, data, is_norm, norms, pair, step

STRICT = pytest.mark.parametrize("strict", [True, False], ids=["strict", "not"])
BATCH = {0: Dim("batch", min=2)}
DEPRECATED = pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
# PyTorch's BatchNorm says that its check of sizes is not written down; so do a function's checks of ours.
CHECKS = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")


def operators(graph):
    return {str(n.target) for n in graph.nodes if n.op == "call_function"}


@EVERY
@MODES
@STRICT
def test_export(strict, training, name):
    theirs, ours = (m.train(training) for m in pair(name))
    program = torch.export.export(ours, (data(name)[0],), dynamic_shapes=(BATCH,), strict=strict)
    right = torch.export.export(theirs, (data(name)[0],), dynamic_shapes=(BATCH,), strict=strict)
    assert operators(program.graph) == operators(right.graph)
    module = program.module()
    for seed, rows in enumerate((4, 7)):
        batch = data(name, seed=seed, rows=rows)
        assert_near(step(module, *batch), step(theirs, *batch))
    changed = [key for key, _ in theirs.named_buffers() if training]
    assert_near(*([m.state_dict()[key].float() for key in changed] for m in (module, theirs)))


@EVERY
def test_export_without_gradients(name):
    theirs, ours = (m.eval() for m in pair(name))
    with torch.no_grad():
        program = torch.export.export(ours, (data(name)[0],))
        assert not [t for t in operators(program.graph) if "normkit" in t]
        assert_near([program.module()(data(name)[0])], [theirs(data(name)[0])])


RUN = """
import sys, torch
sys.modules["normkit"] = None
load, file, batch, right = sys.argv[1:]
run = torch.jit.load(file) if load == "jit" else torch.export.load(file).module()
torch.testing.assert_close(run(torch.load(batch)), torch.load(right), rtol=1e-4, atol=1e-5)
"""


@pytest.mark.parametrize("load", ["jit", "export"])
@DEPRECATED
def test_it_runs_where_normkit_is_not(load, tmp_path):
    ours = torch.nn.Sequential(pair("transformer")[1], torch.nn.Flatten(), nk.BatchNorm1d(15)).eval()
    x = data("transformer")[0]
    file, *tensors = (str(tmp_path / part) for part in ("program.pt2", "x.pt", "y.pt"))
    if load == "jit":
        torch.jit.trace(ours, x).save(file)
    else:
        torch.export.save(torch.export.export(ours, (x,)), file)
    for t, path in zip((x, ours(x).detach()), tensors, strict=True):
        torch.save(t, path)
    python("-W", "ignore", "-c", RUN, load, file, *tensors)


class Variants(torch.nn.Module):
    """What PyTorch has no call for, and parameters of another dtype than the data's."""

    def __init__(self):
        super().__init__()
        self.first = nk.RMSNorm(6, eps=0.1, bias=True, eps_mode="outside", gain_offset=1.0)
        self.second = nk.RMSNorm((5, 6), bias=True, gain_offset=0.5)
        self.third, self.last = nk.LayerNorm((5, 6), dtype=torch.float64), nk.BatchNorm1d(5, momentum=None)
        for p in self.parameters():
            torch.nn.init.uniform_(p, 0.5, 1.5)

    def forward(self, x):
        return self.last(self.third(self.second(self.first(x))))


@MODES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_variants(dtype, training):
    torch.manual_seed(0)
    ours = Variants().train(training)
    x = torch.randn(4, 5, 6, dtype=dtype)
    program = torch.export.export(ours, (x,), dynamic_shapes=(BATCH,))
    assert not [t for t in operators(program.graph) if "normkit" in t]
    module, x = program.module(), torch.randn(7, 5, 6, dtype=dtype)
    y = module(x)
    assert y.dtype == dtype
    right = ours(x).detach()
    near = 4 * torch.finfo(dtype).eps * float(right.abs().max())  # a rounding each of four norms
    torch.testing.assert_close(y.detach(), right, rtol=0, atol=near)
    for key, t in ours.last.state_dict().items():
        torch.testing.assert_close(module.state_dict()[f"last.{key}"], t, rtol=0, atol=near)


def test_a_mistake_is_named():
    for layer, message in ((nk.LayerNorm(6), "normalized_shape"), (nk.BatchNorm1d(6), "running_mean")):
        with pytest.raises(ValueError, match=message):
            torch.export.export(torch.nn.Sequential(torch.nn.Linear(4, 5), layer), (torch.randn(3, 4),))
        layer.eps = -1.0
        with pytest.raises(ValueError, match="eps must be"):
            torch.export.export(torch.nn.Sequential(torch.nn.Linear(4, 6), layer), (torch.randn(3, 4),))


@EVERY
@MODES
@DEPRECATED
@CHECKS
def test_trace(training, name):
    theirs, ours = (m.train(training) for m in pair(name))
    traced = torch.jit.trace(ours, data(name)[0], check_trace=not training)
    theirs(data(name)[0])  # tracing is a batch
    assert "normkit::" not in str(traced.inlined_graph)
    for seed, rows in enumerate((4, 7)):
        batch = data(name, seed=seed, rows=rows)
        assert_near(step(traced, *batch), step(theirs, *batch))
    assert_same_state(ours, theirs)


@DEPRECATED
@CHECKS
def test_a_traced_function():
    """Where no model is traced our own operators are written down: with gradients, another than without.

    PyTorch's check traces again without gradients, and would find that other graph.
    """

    def function(x, w, b):
        x = nk.functional.layer_norm(nk.functional.batch_norm(x, None, None, training=True), (6,), w, b)
        return nk.functional.rms_norm(x, (6,), w)

    inputs = [torch.randn(shape, requires_grad=True) for shape in ((4, 6), (6,), (6,))]
    traced = torch.jit.trace(function, inputs, check_trace=False)
    assert "normkit::row_norm" in str(traced.graph)
    grad = torch.randn(4, 6)
    found = [[y := f(*inputs), *torch.autograd.grad(y, inputs, grad)] for f in (traced, function)]
    assert_near(*([t.detach() for t in each] for each in found))


@EVERY
def test_symbolic_trace(name):
    theirs, ours = pair(name)
    traced, right = torch.fx.symbolic_trace(ours), torch.fx.symbolic_trace(theirs)
    assert [(n.op, n.name) for n in traced.graph.nodes] == [(n.op, n.name) for n in right.graph.nodes]
    called = [ours.get_submodule(n.target) for n in traced.graph.nodes if n.op == "call_module"]
    assert sum(map(is_norm, called)) == norms(ours)
    for training in (True, False):  # decided when it runs, not when it was traced
        traced.train(training)
        theirs.train(training)
        assert_near(step(traced, *data(name)), step(theirs, *data(name)))
    assert_same_state(ours, theirs)


def test_symbolic_trace_of_functions_and_of_a_layer_alone():
    class Model(torch.nn.Module):
        def forward(self, x):
            x = nk.functional.layer_norm(x, (6,))
            return nk.functional.batch_norm(nk.functional.rms_norm(x, (6,)), None, None, training=True)

    x = torch.randn(4, 6)
    for model in (Model(), nk.LayerNorm(6), nk.RMSNorm(6)):
        traced = torch.fx.symbolic_trace(model)
        names = [n.target.__name__ for n in traced.graph.nodes if n.op == "call_function"]
        assert names in (["layer_norm", "rms_norm", "batch_norm"], ["layer_norm"], ["rms_norm"])
        assert torch.equal(traced(x), model(x))
