"""The four networks of the study, each with the same place for a norm.

All read images of shape (B, 8, 8) and return logits of shape (B, 10). None has dropout or another
source of noise, so that whatever differs between training and inference comes from the norm.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import normkit as nk
from normkit.study.data import CLASSES

__all__ = ["ARCHITECTURES", "NORMS", "FeatureBatchNorm", "build"]

NORMS = ("none", "batch", "layer", "rms")
SIDE = 8


class FeatureBatchNorm(nn.Module):
    """BatchNorm over the last axis of (B, ..., D): all leading axes, time too, count as the batch."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nk.BatchNorm1d(features)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each feature over every leading axis; shape (B, ..., D) in and out."""
        y: Tensor = self.norm(x.reshape(-1, x.shape[-1]))
        return y.reshape(x.shape)


def feature_norm(norm: str, features: int) -> nn.Module:
    """A norm of activations whose last axis holds the features."""
    if norm == "batch":
        return FeatureBatchNorm(features)
    if norm == "layer":
        return nk.LayerNorm(features)
    return nk.RMSNorm(features, bias=True) if norm == "rms" else nn.Identity()


def image_norm(norm: str, channels: int, side: int) -> nn.Module:
    """A norm of (B, C, H, W): BatchNorm per channel, LayerNorm and RMSNorm over each sample's C, H, W."""
    if norm == "batch":
        return nk.BatchNorm2d(channels)
    if norm == "layer":
        return nk.LayerNorm((channels, side, side))
    return nk.RMSNorm((channels, side, side), bias=True) if norm == "rms" else nn.Identity()


def mlp(norm: str, width: int = 64, depth: int = 3) -> nn.Module:
    """Flatten, then `depth` times linear, norm, ReLU, then linear."""
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = SIDE * SIDE
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), feature_norm(norm, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, CLASSES))


def cnn(norm: str, channels: int = 12) -> nn.Module:
    """Three 3x3 convolutions, each with norm and ReLU, on 8x8, 4x4 and 4x4; global average; linear."""
    return nn.Sequential(
        nn.Unflatten(1, (1, SIDE)),
        nn.Conv2d(1, channels, 3, padding=1),
        image_norm(norm, channels, SIDE),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        image_norm(norm, 2 * channels, SIDE // 2),
        nn.ReLU(),
        nn.Conv2d(2 * channels, 2 * channels, 3, padding=1),
        image_norm(norm, 2 * channels, SIDE // 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * channels, CLASSES),
    )


class RecurrentLayer(nn.Module):
    """`h_t = tanh(norm(W x_t) + U h_(t-1) + b)`, the norm applied to all time steps at once."""

    def __init__(self, norm: str, inputs: int, width: int) -> None:
        super().__init__()
        self.from_input = nn.Linear(inputs, width, bias=False)
        self.norm = feature_norm(norm, width)
        self.from_state = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, T, inputs) in, (B, T, width) out."""
        steps = self.norm(self.from_input(x)).unbind(1)
        state = torch.zeros_like(steps[0])
        states = []
        for step in steps:
            state = torch.tanh(step + self.from_state(state))
            states.append(state)
        return torch.stack(states, dim=1)


class RNN(nn.Module):
    """Two recurrent layers over the image's rows; the last state is classified."""

    def __init__(self, norm: str, width: int = 48) -> None:
        super().__init__()
        self.layers = nn.Sequential(RecurrentLayer(norm, SIDE, width), RecurrentLayer(norm, width, width))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, 8, 8), rows as time steps, in; (B, 10) out."""
        logits: Tensor = self.head(self.layers(x)[:, -1])
        return logits


class Block(nn.Module):
    """Pre-norm Transformer block: `x + attention(norm(x))`, then `x + mlp(norm(x))`."""

    def __init__(self, norm: str, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = feature_norm(norm, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp_norm = feature_norm(norm, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, T, width) in and out."""
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        y: Tensor = x + self.mlp(self.mlp_norm(x))
        return y


class Transformer(nn.Module):
    """Image rows as eight tokens, learned positions, two pre-norm blocks, a last norm, mean, linear."""

    def __init__(self, norm: str, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(SIDE, width)
        self.positions = nn.Parameter(0.1 * torch.randn(SIDE, width))
        self.blocks = nn.Sequential(Block(norm, width, heads), Block(norm, width, heads))
        self.norm = feature_norm(norm, width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, 8, 8) in, (B, 10) out."""
        y = self.norm(self.blocks(self.embed(x) + self.positions))
        logits: Tensor = self.head(y.mean(dim=1))
        return logits


ARCHITECTURES: dict[str, Callable[[str], nn.Module]] = {
    "CNN": cnn,
    "MLP": mlp,
    "RNN": RNN,
    "Transformer": Transformer,
}


def build(architecture: str, norm: str) -> nn.Module:
    """The network `architecture`, one of `ARCHITECTURES`, with `norm`, one of `NORMS`."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}; got {architecture!r}")
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}; got {norm!r}")
    return ARCHITECTURES[architecture](norm)
