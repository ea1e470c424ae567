"""Small models of PyTorch's layers, and the same with ours in their place."""

import copy

import torch
from torch import nn

import normkit as nk

OURS = {
    nn.BatchNorm1d: nk.BatchNorm1d,
    nn.BatchNorm2d: nk.BatchNorm2d,
    nn.BatchNorm3d: nk.BatchNorm3d,
    nn.LayerNorm: nk.LayerNorm,
    nn.RMSNorm: nk.RMSNorm,
}


def swapped(model):
    """A copy of the model whose norms are ours, with the same parameters and buffers."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if type(module) in OURS:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, ours_for(module))
    return model


def ours_for(theirs):
    """Our layer with the options, parameters and buffers of PyTorch's."""
    if isinstance(theirs, nn.LayerNorm):
        options = {"bias": theirs.bias is not None}
    elif isinstance(theirs, nn.RMSNorm):
        options = {}
    else:
        options = {"momentum": theirs.momentum, "affine": theirs.affine}
    size = theirs.num_features if hasattr(theirs, "num_features") else theirs.normalized_shape
    ours = OURS[type(theirs)](size, eps=theirs.eps, **options).train(theirs.training)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours


class Block(nn.Module):
    """A Transformer's block, pre-norm."""

    def __init__(self, width=16):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width, bias=False)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))

    def forward(self, x):
        h = self.norm1(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


def cnn():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, bias=False),
        nn.BatchNorm2d(6, momentum=None),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16, 10, bias=False),
        nn.BatchNorm1d(10, affine=False),
    )


def rms_mlp():
    return nn.Sequential(
        nn.Linear(12, 24), nn.RMSNorm(24), nn.SiLU(), nn.Linear(24, 12), nn.RMSNorm((12,), eps=1e-6)
    )


# name: model, shape of its input
MODELS = {
    "cnn": (cnn, (6, 3, 8, 8)),
    "transformer": (lambda: nn.Sequential(Block(), Block(), nn.LayerNorm(16)), (3, 7, 16)),
    "rms": (rms_mlp, (5, 12)),
}

# name: PyTorch's layer, arguments, shape of an input
LAYERS = {
    "BatchNorm1d": (nn.BatchNorm1d, (5,), {}, (6, 5)),
    "BatchNorm1d sequence": (nn.BatchNorm1d, (5,), {"momentum": 0.3}, (6, 5, 4)),
    "BatchNorm2d": (nn.BatchNorm2d, (5,), {"eps": 1e-3}, (3, 5, 4, 2)),
    "BatchNorm2d cumulative": (nn.BatchNorm2d, (5,), {"momentum": None}, (3, 5, 4, 2)),
    "BatchNorm2d plain": (nn.BatchNorm2d, (5,), {"affine": False}, (3, 5, 4, 2)),
    "BatchNorm2d untracked": (nn.BatchNorm2d, (5,), {"track_running_stats": False}, (3, 5, 4, 2)),
    "BatchNorm3d": (nn.BatchNorm3d, (5,), {}, (2, 5, 3, 2, 2)),
    "LayerNorm": (nn.LayerNorm, (6,), {}, (4, 6)),
    "LayerNorm 2-d": (nn.LayerNorm, ((3, 6),), {"eps": 1e-3}, (4, 3, 6)),
    "LayerNorm unbiased": (nn.LayerNorm, (6,), {"bias": False}, (4, 6)),
    "LayerNorm plain": (nn.LayerNorm, (6,), {"elementwise_affine": False}, (4, 6)),
    "RMSNorm": (nn.RMSNorm, (6,), {}, (4, 6)),
    "RMSNorm 2-d": (nn.RMSNorm, ([3, 6],), {"eps": 1e-3}, (4, 3, 6)),
    "RMSNorm plain": (nn.RMSNorm, (6,), {"elementwise_affine": False}, (4, 6)),
}


def pair(name, **changed):
    """PyTorch's layer and ours, made by the same arguments, with the same random parameters."""
    layer, arguments, options, shape = LAYERS[name]
    theirs, ours = (make(*arguments, **options, **changed) for make in (layer, OURS[layer]))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape) + 1)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours, shape
