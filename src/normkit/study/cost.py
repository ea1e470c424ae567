"""Forward and backward time of each norm, ours and PyTorch's, next to a copy of the same tensor."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import normkit as nk
from normkit.bench.memory import keep_memory
from normkit.study.results import Cost

__all__ = ["Case", "cases", "least_bytes", "measure"]

EPS = 1e-5
SAMPLE_SECONDS = 2e-4  # a sample repeats a short call until it lasts this long; a long one is called once
# float32: the output's own rounding and that of mean and variance, in units of 2^-23 times the largest value;
# a parameter's gradient sums over rows, its error grows with the root of their number.
OUTPUT_UNITS, GRADIENT_UNITS = 16.0, 64.0


@dataclass(frozen=True)
class Case:
    """One norm of one implementation on one shape; BatchNorm's features stand at axis 1, others' last."""

    norm: str
    implementation: str
    shape: tuple[int, ...]

    @property
    def features(self) -> int:
        """Length of the gain: the channels for BatchNorm, the row for LayerNorm and RMSNorm."""
        return self.shape[1] if self.norm == "batch" else self.shape[-1]

    def layer(self) -> nn.Module:
        """The layer in training mode. RMSNorm has no bias here, since PyTorch's own has none."""
        library = nk if self.implementation == "normkit" else nn
        if self.norm == "batch":
            kind = library.BatchNorm1d if len(self.shape) == 2 else library.BatchNorm2d
            layer: nn.Module = kind(self.features, eps=EPS)
        elif self.norm == "layer":
            layer = library.LayerNorm(self.features, eps=EPS)
        else:
            layer = library.RMSNorm(self.features, eps=EPS)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.normal_()  # a gain of one and a bias of zero would hide errors
        return layer.train()


def cases(elements: int) -> tuple[Case, ...]:
    """The timed cases: the article's own (16, 64), and a large tensor of `elements` float32 numbers.

    BatchNorm takes the large one as (N, 64, 32, 32) images, LayerNorm and RMSNorm as rows of 4096.
    `elements` must be a multiple of 65536.
    """
    images, rows = (elements // 65536, 64, 32, 32), (elements // 4096, 4096)
    shapes = {"batch": ((16, 64), images), "layer": ((16, 64), rows), "rms": ((16, 64), rows)}
    return tuple(
        Case(norm, implementation, shape)
        for norm, both in shapes.items()
        for shape in both
        for implementation in ("normkit", "torch")
    )


def least_bytes(elements: int, backward: bool) -> int:
    """Bytes that any implementation of a float32 norm must move.

    Forward: the input read, the output written. Backward in addition: the input and the upstream
    gradient read, the input's gradient written. Gain, bias and statistics are too small to count. An
    implementation that passes over its tensor more often moves more, and shows as slower.
    """
    return (5 if backward else 2) * 4 * elements


def measure(elements: int, repeats: int, progress: Callable[[int, int], None]) -> tuple[Cost, ...]:
    """Time every case `repeats` times, all cases interleaved, each next to a copy of its input.

    A case whose output or gradients differ from float64 by more than rounding is not timed.
    Outputs are allocated by each call, as in training, from memory that the process keeps; the copy goes
    to memory already in use. Copy and norm take turns, so that each finds the caches as the other left
    them.
    """
    keep_memory()
    timed = [_Timed(case, backward) for case in cases(elements) for backward in (False, True)]
    shuffle = random.Random(0)  # so that no case always runs in the wake of the same other one
    for repeat in range(repeats):
        progress(repeat, repeats)
        for one in shuffle.sample(timed, len(timed)):
            one.sample()
    progress(repeats, repeats)
    return tuple(one.result() for one in timed)


class _Timed:
    """A case with its inputs and the samples taken so far."""

    def __init__(self, case: Case, backward: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        self.case, self.backward = case, backward
        self.layer = case.layer()
        self.x = torch.randn(case.shape, generator=generator).requires_grad_(backward)
        self.upstream = torch.randn(case.shape, generator=generator)
        self.inputs = [self.x, *self.layer.parameters()]
        self.target = torch.empty(case.shape)
        self.max_error = _max_error(case, self.layer, self.x.detach(), self.upstream)
        self.seconds: list[float] = []
        self.copy_seconds: list[float] = []
        self.calls = _calls_per_sample(self.run)
        self.copy_calls = _calls_per_sample(self.copy)

    def run(self) -> None:
        if self.backward:
            torch.autograd.grad(self.layer(self.x), self.inputs, self.upstream)
        else:
            with torch.no_grad():
                self.layer(self.x)

    def copy(self) -> None:
        self.target.copy_(self.x.detach())

    def sample(self) -> None:
        if self.max_error <= 1.0:
            self.copy_seconds.append(_seconds(self.copy, self.copy_calls))
            self.seconds.append(_seconds(self.run, self.calls))

    def result(self) -> Cost:
        return Cost(
            norm=self.case.norm,
            implementation=self.case.implementation,
            shape=self.case.shape,
            backward=self.backward,
            moved_bytes=least_bytes(self.x.numel(), self.backward),
            copy_bytes=least_bytes(self.x.numel(), backward=False),
            max_error=self.max_error,
            seconds=tuple(self.seconds),
            copy_seconds=tuple(self.copy_seconds),
        )


def _calls_per_sample(call: Callable[[], None]) -> int:
    calls = 1
    call()  # the first call pays for memory and for choosing a kernel
    while (seconds := _seconds(call, calls) * calls) < SAMPLE_SECONDS:
        calls *= max(2, int(SAMPLE_SECONDS / max(seconds, 1e-7)))
    return calls


def _seconds(call: Callable[[], None], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def _max_error(case: Case, layer: nn.Module, x: Tensor, upstream: Tensor) -> float:
    """Largest error of output and gradients against float64, in units of what rounding explains."""
    parameters: list[Tensor] = list(layer.parameters())
    measured = _output_and_gradients(lambda x, *_: layer(x), x, parameters, upstream)
    wide = [tensor.double() for tensor in parameters]
    exact = _output_and_gradients(
        lambda x, *gain_and_bias: _formula(case, x, *gain_and_bias), x.double(), wide, upstream.double()
    )
    rows = x.numel() / case.features
    units = [OUTPUT_UNITS, GRADIENT_UNITS] + [GRADIENT_UNITS * rows**0.5] * len(parameters)
    errors = [
        float((got - want).abs().max() / (unit * 2.0**-23 * want.abs().max()))
        for got, want, unit in zip(measured, exact, units, strict=True)
    ]
    # NaN compares false with everything: it must not pass for a small error.
    return max(1e9 if error != error else min(error, 1e9) for error in errors)


def _output_and_gradients(
    norm: Callable[..., Tensor], x: Tensor, parameters: list[Tensor], upstream: Tensor
) -> list[Tensor]:
    x = x.detach().clone().requires_grad_()
    leaves = [x, *(parameter.requires_grad_() for parameter in parameters)]
    y = norm(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, upstream)]


def _formula(case: Case, x: Tensor, gain: Tensor, bias: Tensor | None = None) -> Tensor:
    """The norm by its definition, written with plain operators."""
    axes = [0, *range(2, x.dim())] if case.norm == "batch" else [-1]
    along = [1, -1, *[1] * (x.dim() - 2)] if case.norm == "batch" else [-1]
    centred = x if case.norm == "rms" else x - x.mean(axes, keepdim=True)
    y = centred / (centred.square().mean(axes, keepdim=True) + EPS).sqrt() * gain.view(along)
    return y if bias is None else y + bias.view(along)
