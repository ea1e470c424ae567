"""Which axes a normalization layer normalises, found out by watching it.

One input element is changed. Every *other* output element that changes with it shares statistics with
it; the axes along which such elements lie are the axes normalised. Nothing is read from the layer but
its outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import normkit as nk
from normkit.study.results import Axes

__all__ = ["probe", "probe_norms"]

PROBES = 6  # elements changed, one at a time, at random places
TOLERANCE = 1e-9  # float64: far above rounding, far below the effect of one element on a statistic


def probe(layer: nn.Module, norm: str, layout: Sequence[str], shape: Sequence[int], training: bool) -> Axes:
    """Probe `layer` on a random float64 input of `shape`, whose axes are called `layout`.

    An axis is *shared* if a change at one place reaches all other places along it, *grouped* if it
    reaches some of them, and *separate* if none. Also found: whether the output ignores a constant
    added to the whole input (*centred*) and a positive factor on it (*scaled*).

    Raises ValueError where `layout` and `shape` differ in length or an axis is shorter than 2.
    """
    if len(layout) != len(shape) or min(shape) < 2:
        raise ValueError(
            f"layout {tuple(layout)} must name axes of length 2 or more; got shape {tuple(shape)}"
        )
    layer = copy.deepcopy(layer).double().train(training)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, dtype=torch.float64, generator=generator)
    # Away from zero, so that no element is insensitive to a change of the scale.
    x += 0.5 * x.sign()
    reach = torch.zeros(len(shape), 2, dtype=torch.bool)  # per axis: reached some places, reached all
    reach[:, 1] = True
    for _ in range(PROBES):
        place = tuple(int(torch.randint(size, (), generator=generator)) for size in shape)
        some, everywhere = _reach(layer, x, place)
        reach[:, 0] |= some
        reach[:, 1] &= everywhere
    kinds = ["shared" if every else "grouped" if some else "separate" for some, every in reach.tolist()]
    y = _output(layer, x)
    return Axes(
        norm=norm,
        training=training,
        layout=tuple(layout),
        shape=tuple(shape),
        shared=_named(layout, kinds, "shared"),
        grouped=_named(layout, kinds, "grouped"),
        separate=_named(layout, kinds, "separate"),
        centred=_same(_output(layer, x + 3.0), y),
        scaled=_same(_output(layer, x * 7.0), y),
    )


def probe_norms(norms: Sequence[str]) -> tuple[Axes, ...]:
    """Probe BatchNorm on images, LayerNorm and RMSNorm on sequences, each in training and inference."""
    images = ("batch", "channel", "height", "width"), (4, 6, 3, 5)
    sequences = ("batch", "time", "feature"), (4, 3, 6)
    layers = {
        "batch": (nk.BatchNorm2d(6), *images),
        "layer": (nk.LayerNorm(6), *sequences),
        "rms": (nk.RMSNorm(6, bias=True), *sequences),
    }
    return tuple(
        probe(layer, norm, layout, shape, training)
        for norm, (layer, layout, shape) in layers.items()
        if norm in norms
        for training in (True, False)
    )


def _reach(layer: nn.Module, x: Tensor, place: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    changed_x = x.clone()
    changed_x[place] += 1.0
    changed = (_output(layer, changed_x) - _output(layer, x)).abs() > TOLERANCE
    # Along one axis through the place, the others held: the place itself tells nothing, since its
    # output follows its input whatever the statistics.
    some, everywhere = [], []
    for axis in range(x.dim()):
        line = changed[tuple(slice(None) if i == axis else at for i, at in enumerate(place))]
        others = torch.cat([line[: place[axis]], line[place[axis] + 1 :]])
        some.append(bool(others.any()))
        everywhere.append(bool(others.all()))
    return torch.tensor(some), torch.tensor(everywhere)


@torch.no_grad()
def _output(layer: nn.Module, x: Tensor) -> Tensor:
    # A fresh copy each time: in training a BatchNorm changes its own state.
    y: Tensor = copy.deepcopy(layer)(x)
    return y


def _same(a: Tensor, b: Tensor) -> bool:
    # eps keeps the output from being exactly invariant; 1e-3 is far above its trace and far below the
    # effect of a shift or factor that is not taken out.
    return bool((a - b).abs().max() < 1e-3)


def _named(layout: Sequence[str], kinds: Sequence[str], kind: str) -> tuple[str, ...]:
    return tuple(name for name, found in zip(layout, kinds, strict=True) if found == kind)
