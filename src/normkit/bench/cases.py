"""What is measured: an operator on a shape, and who computes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import normkit as nk

EPS = 1e-5
Norm = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Case:
    """An operator on float32 or bfloat16 data, weights of the same dtype: what PyTorch is fastest on.

    op: "layer_norm" or "rms_norm" over the last dimension, or "batch_norm" in training.
    backward: whether the gradients of input, weight and bias are computed too.
    """

    op: str
    shape: tuple[int, ...]
    backward: bool
    dtype: str = "float32"
    channels_last: bool = False

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) + (" channels-last" if self.channels_last else "")
        return f"{self.dtype} {self.op} {shape} {'forward + backward' if self.backward else 'forward'}"

    @property
    def features(self) -> int:
        """Elements of weight and bias."""
        return self.shape[1] if self.op == "batch_norm" else self.shape[-1]

    @property
    def least_bytes(self) -> int:
        """Bytes any implementation must move: each tensor as large as the input read or written once.

        Forward: x read, y written. Backward: x and y's gradient read, x's gradient written.
        """
        itemsize: int = getattr(torch, self.dtype).itemsize
        return math.prod(self.shape) * itemsize * (5 if self.backward else 2)

    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Random x, weight, bias and upstream gradient, the same at every call."""
        generator = torch.Generator().manual_seed(0)
        dtype = getattr(torch, self.dtype)
        x, upstream = (torch.randn(self.shape, generator=generator).to(dtype) for _ in range(2))
        weight, bias = ((torch.rand(self.features, generator=generator) + 0.5).to(dtype) for _ in range(2))
        memory = torch.channels_last if self.channels_last else torch.contiguous_format
        x, upstream = (t.contiguous(memory_format=memory) for t in (x, upstream))
        return x, weight, bias, upstream


_LARGE = tuple(
    Case(op, shape, backward, dtype)
    for op, shape, dtype in (
        ("rms_norm", (512, 4096), "float32"),
        ("layer_norm", (512, 4096), "float32"),
        ("rms_norm", (512, 4096), "bfloat16"),
        ("layer_norm", (8192, 768), "bfloat16"),
    )
    for backward in (False, True)
)
_IMAGES = tuple(
    Case("batch_norm", (32, 64, 56, 56), backward, channels_last=channels_last)
    for channels_last in (False, True)
    for backward in (False, True)
)
CASES = (Case("layer_norm", (1, 64), False), Case("rms_norm", (1, 64), False), *_LARGE, *_IMAGES)


def _normkit(case: Case) -> Norm:
    shape = (case.features,)
    return {
        "layer_norm": lambda x, w, b: nk.functional.layer_norm(x, shape, w, b, EPS),
        "rms_norm": lambda x, w, b: nk.functional.rms_norm(x, shape, w, EPS),
        "batch_norm": lambda x, w, b: nk.functional.batch_norm(x, None, None, w, b, True, 0.1, EPS),
    }[case.op]


def _pytorch(case: Case) -> Norm:
    shape = (case.features,)
    f = torch.nn.functional
    return {
        "layer_norm": lambda x, w, b: f.layer_norm(x, shape, w, b, EPS),
        "rms_norm": lambda x, w, b: f.rms_norm(x, shape, w, EPS),
        "batch_norm": lambda x, w, b: f.batch_norm(x, None, None, w, b, True, 0.1, EPS),
    }[case.op]


CONTENDERS: dict[str, Callable[[Case], Norm]] = {"normkit": _normkit, "PyTorch": _pytorch}


def exact(case: Case) -> list[npt.NDArray[np.float64]]:
    """Output and gradients in float64, from the NumPy reference."""
    x, weight, bias, upstream = (t.double().numpy() for t in case.inputs())
    shape = (case.features,)
    if case.op == "batch_norm":
        y = nk.reference.batch_norm(x, None, None, weight, bias, True, eps=EPS).output
        grads = nk.reference.batch_norm_backward(upstream, x, None, None, weight, bias, True, EPS)
    elif case.op == "layer_norm":
        y = nk.reference.layer_norm(x, shape, weight, bias, EPS)
        grads = nk.reference.layer_norm_backward(upstream, x, shape, weight, bias, EPS)
    else:
        y = nk.reference.rms_norm(x, shape, weight, EPS)
        grads = nk.reference.rms_norm_backward(upstream, x, shape, weight, EPS)
    wanted = [y, *(g for g in grads if g is not None)] if case.backward else [y]
    return [np.asarray(t, dtype=np.float64) for t in wanted]
