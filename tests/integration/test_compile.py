"""`torch.compile(fullgraph=True)` of whole models: as PyTorch's run eagerly, and compiled once or twice."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from .models import EVERY, MODELS, assert_near, assert_same_state, data, pair, step

pytestmark = pytest.mark.usefixtures("fresh")
# No size is another dimension's too: PyTorch takes equal ones for the same.
BATCHES = [8, 8, 7, 11, 15, 9]


class Compiled(torch.nn.Module):
    """A model's compiled forward, with the model's parameters under their own names."""

    def __init__(self, model, **options):
        super().__init__()
        self.model, self.run = model, torch.compile(model, fullgraph=True, **options)

    def forward(self, x):
        return self.run(x)


@EVERY
@pytest.mark.parametrize(
    ("training", "dynamic", "compilations"),
    [(True, True, 1), (True, None, 2), (False, None, 2)],
    ids=["train-dynamic", "train-automatic", "eval-automatic"],
)
def test_batches_of_many_sizes(name, training, dynamic, compilations):
    """Compiled at the first batch alone, or once more when PyTorch has seen that batches differ."""
    theirs, ours = (m.train(training) for m in pair(name))
    counter = CompileCounterWithBackend("aot_eager")
    compiled = Compiled(ours, backend=counter, dynamic=dynamic)
    counts = []
    for seed, rows in enumerate(BATCHES):
        batch = data(name, seed=seed, rows=rows)
        assert_near(step(compiled, *batch), step(theirs, *batch))
        counts.append(counter.frame_count)
    assert len(set(counts)) == compilations, counts
    assert_same_state(ours, theirs)


@EVERY
def test_static_shapes_compile_once_for_each(name):
    theirs, ours = pair(name)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = Compiled(ours, backend=counter, dynamic=False)
    counts = []
    for rows in BATCHES[1:3] * 2:
        batch = data(name, rows=rows)
        assert_near(step(compiled, *batch), step(theirs, *batch))
        counts.append(counter.frame_count)
    assert counts == [1, 2, 2, 2]


@EVERY
def test_no_recompilation_where_nothing_changed(name):
    """Steps of an optimizer, train and eval by turns: a graph for each of the two, no more."""
    theirs, ours = pair(name)
    compiled = Compiled(ours, backend="aot_eager", dynamic=True)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01) for m in (ours, theirs)]
    for seed in range(len(BATCHES)):
        with torch._dynamo.config.patch(error_on_recompile=seed > 0):
            batch = data(name, seed=seed, rows=BATCHES[seed])
            assert_near(step(compiled.train(), *batch), step(theirs.train(), *batch))
        for optimizer in optimizers:
            optimizer.step()
        with torch._dynamo.config.patch(error_on_recompile=seed > 0), torch.no_grad():
            x = data(name, seed=-seed, rows=BATCHES[seed])[0]
            assert_near([compiled.eval()(x)], [theirs.eval()(x)])
    assert_same_state(ours, theirs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own use of torch.jit
@EVERY
def test_inductor(name):
    theirs, ours = pair(name)
    compiled = Compiled(ours, dynamic=True)
    for rows in BATCHES[1:3]:
        batch = data(name, rows=rows)
        assert_near(step(compiled, *batch), step(theirs, *batch))
    assert_same_state(ours, theirs)


def test_the_graph_holds_our_operators():
    """Not PyTorch's: `torch.export` alone writes those."""
    seen = []

    def look(graph, _):
        seen.extend(str(n.target) for n in graph.graph.nodes if n.op == "call_function")
        return graph.forward

    for name in MODELS:
        step(Compiled(pair(name)[1], backend=look), *data(name))
    assert {t.split(".")[1] for t in seen if t.startswith("normkit")} == {
        "row_norm",
        "batch_norm_train",
        "batch_norm_update",
    }
    assert not [t for t in seen if "layer_norm" in t or "rms_norm" in t]
