"""Two models of several layers, of PyTorch's norms and the same of ours, and what a step of them gives."""

import pytest
import torch
from torch import nn

from tests import tolerances
from tests.data import normal
from tests.layers.models import swapped


class Block(nn.Module):
    """A Transformer's block: attention of one head behind a LayerNorm, an MLP behind an RMSNorm."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.RMSNorm(width, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + self.out(torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v)
        return x + self.mlp(self.norm2(x))


def transformer():
    return nn.Sequential(nn.Linear(4, 6), Block(6), Block(6), nn.LayerNorm(6), nn.Linear(6, 3))


def convnet():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.SiLU(),
        nn.Conv2d(4, 3, 3, bias=False),
        nn.BatchNorm2d(3),
        nn.Flatten(),
        nn.Linear(3 * 9, 5),
    )


# name: model, shape of its input, of its output
MODELS = {"transformer": (transformer, (4, 5, 4), (4, 5, 3)), "convnet": (convnet, (4, 2, 5, 5), (4, 5))}
EVERY = pytest.mark.parametrize("name", MODELS)
MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def pair(name, dtype=torch.float32):
    """PyTorch's model and ours, with the same random parameters and statistics."""
    torch.manual_seed(0)
    theirs = MODELS[name][0]()
    with torch.no_grad():
        for key, t in theirs.state_dict().items():
            if t.dim() == 1 and t.is_floating_point():
                positive = key.endswith(("weight", "var"))
                t.copy_(torch.rand(t.shape) + 0.5 if positive else torch.randn(t.shape))
    ours = swapped(theirs).to(dtype)
    theirs = theirs.to(dtype)
    assert norms(ours) == norms(theirs) > 1
    assert all(type(m).__module__.startswith("normkit") for m in ours.modules() if is_norm(m))
    return theirs, ours


def is_norm(module):
    return isinstance(module, (nn.LayerNorm, nn.RMSNorm, nn.modules.batchnorm._BatchNorm))


def norms(model):
    return sum(map(is_norm, model.modules()))


def data(name, dtype=torch.float32, seed=0, rows=None):
    """An input, and a random upstream gradient of the output."""
    _, *shapes = MODELS[name]
    given, gradient = ((rows or shape[0], *shape[1:]) for shape in shapes)
    return normal(given, dtype, ("x", seed)), normal(gradient, dtype, ("grad", seed))


def step(model, x, grad):
    """The output, and the gradients of the input and of every parameter by name, by backward()."""
    x = x.detach().clone().requires_grad_()
    for p in model.parameters():
        p.grad = None
    y = model(x)
    y.backward(grad)
    return [y.detach(), x.grad, *(p.grad for _, p in sorted(model.named_parameters()))]


def assert_near(ours, theirs):
    """Each tensor of one list is near its like in the other, relative to its largest element."""
    for a, b in zip(ours, theirs, strict=True):
        tolerance = tolerances.MODEL_FLOAT64 if b.dtype == torch.float64 else tolerances.MODEL
        size = float(b.detach().abs().max())
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * size)


def assert_same_state(ours, theirs):
    """Parameters and running statistics; the counts of batches exactly."""
    state, right = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(right)
    for key, t in right.items():
        if t.is_floating_point():
            assert_near([state[key]], [t])
        else:
            assert int(state[key]) == int(t), key
