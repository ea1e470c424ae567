"""torch.compile(fullgraph=True): the same outputs, gradients and running statistics as without."""

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import normkit as nk
from tests import tolerances
from tests.data import normal

from .models import LAYERS, MODELS, pair, swapped


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_same(compiled, plain, x, grad, strides=True):
    found = []
    for model in (compiled, plain):
        leaf = x.detach().requires_grad_()
        y = model(leaf)
        wanted = [leaf, *(p for p in model.parameters() if p.requires_grad)]
        found.append([y.detach(), *torch.autograd.grad(y, wanted, grad)])
    for a, b in zip(*found, strict=True):
        size = float(b.abs().max()) or 1.0
        torch.testing.assert_close(a, b, rtol=0, atol=tolerances.MODEL * size)
        assert not strides or a.stride() == b.stride()
    for key, t in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[key.removeprefix("_orig_mod.")], t)


class Compiled(torch.nn.Module):
    """A model and its compiled forward, with the model's own names."""

    def __init__(self, model, **options):
        super().__init__()
        self.model = copy.deepcopy(model)
        self.run = torch.compile(self.model, fullgraph=True, **options)

    def forward(self, x):
        return self.run(x)

    def parameters(self, recurse=True):
        return self.model.parameters(recurse)

    def state_dict(self):
        return self.model.state_dict()


@pytest.mark.parametrize("name", LAYERS)
def test_layers_forward_and_backward(name):
    torch.manual_seed(0)
    _, ours, shape = pair(name)
    compiled = Compiled(ours, backend="aot_eager")
    for seed in range(2):
        assert_same(compiled, ours, normal(shape, seed=seed), normal(shape, seed=-seed - 1))


@pytest.mark.parametrize("name", ["BatchNorm2d", "BatchNorm1d", "LayerNorm", "RMSNorm"])
def test_dynamic_shapes(name):
    """One graph serves every number of rows: nothing is compiled after the first call."""
    torch.manual_seed(0)
    layer = pair(name)[1]
    counter = CompileCounterWithBackend("aot_eager")
    compiled = Compiled(layer, backend=counter, dynamic=True)
    counts = []
    for rows in (9, 7, 12, 20):
        size = (rows, *LAYERS[name][3][1:])
        assert_same(compiled, layer, normal(size, seed=rows), normal(size, seed=-rows))
        counts.append(counter.frame_count)
    assert counts == counts[:1] * 4


@pytest.mark.parametrize("name", LAYERS)
def test_without_gradients(name):
    torch.manual_seed(0)
    _, ours, shape = pair(name)
    compiled = Compiled(ours.eval(), backend="aot_eager")
    x = normal(shape)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), ours(x), rtol=0, atol=0)
    training = Compiled(ours.train(), backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(training(x), ours(x), rtol=0, atol=0)
    for key, t in ours.state_dict().items():
        torch.testing.assert_close(training.state_dict()[key], t, rtol=0, atol=0)


def test_inference_mode():
    layer = nk.LayerNorm(6)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        x = normal((3, 6))
        assert torch.equal(compiled(x), layer(x))


@pytest.mark.parametrize("shape", [(3, 5, 4, 2), (2, 5, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_channels_last(training, shape):
    layer = (nk.BatchNorm2d if len(shape) == 4 else nk.BatchNorm3d)(5).train(training)
    compiled = Compiled(layer, backend="aot_eager")
    x, grad = (normal(shape, seed=s).movedim(1, -1).contiguous().movedim(-1, 1) for s in (1, 2))
    assert_same(compiled, layer, x, grad)
    assert compiled(x).stride() == x.stride()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    for layer in (
        nk.LayerNorm(6),
        nk.RMSNorm(6, bias=True, eps_mode="outside", gain_offset=1.0),
        nk.BatchNorm1d(6),
    ):
        compiled = Compiled(layer, backend="aot_eager")  # float32 parameters
        assert_same(compiled, layer, normal((5, 6), dtype), normal((5, 6), dtype, "grad"))


@pytest.mark.parametrize("affine", [True, False])
def test_a_mistake_is_named_when_compiled(affine):
    compiled = torch.compile(nk.LayerNorm(6, elementwise_affine=affine), fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match=r"normalized_shape must|weight must"):
        compiled(normal((3, 5)))


# Inductor compiles C++ for each of these: few.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own use of torch.jit
@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_models_with_inductor(name):
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model = swapped(make())
    compiled = Compiled(model)
    x = normal(shape)
    # Inductor chooses strides of its own for what a convolution gives.
    assert_same(compiled, model, x, normal(copy.deepcopy(model)(x).shape, seed="grad"), strides=False)
