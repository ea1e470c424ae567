"""The norms in PyTorch's own calls: what is written down to be run elsewhere, where normkit is not.

`torch.export`, the ONNX exporters and `torch.jit.trace` write down what a model does. With our operators
in it the result would need normkit wherever it is run, and no exporter knows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from normkit.kernels import pytorch


def layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """LayerNorm; see `normkit.functional.layer_norm`."""
    x, weight, bias = _alike(input, weight, bias)
    return _back(F.layer_norm(x, list(normalized_shape), weight, bias, _valid(eps)), input)


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    outside: bool,
    gain_offset: float,
) -> Tensor:
    """RMSNorm and its variants; see `normkit.functional.rms_norm`."""
    eps = torch.finfo(input.dtype).eps if eps is None else _valid(eps)
    shape = list(normalized_shape)
    if not outside and bias is None and gain_offset == 0.0:
        x, weight = _alike(input, weight)
        return _back(F.rms_norm(x, shape, weight, eps), input)
    x, weight, bias = _accumulated(input, weight, bias)
    gain = weight if weight is None else weight + gain_offset
    if outside:
        root = x.square().mean([-1 - d for d in range(len(shape))], keepdim=True).sqrt()
        y = x / (root + eps)
        y = y if gain is None else y * gain
    else:
        y = F.rms_norm(x, shape, gain, eps)
    return _back(y if bias is None else y + bias, input)


def batch_norm(
    input: Tensor,
    tracked: tuple[Tensor | None, Tensor | None, Tensor | None],
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float | None,
    eps: float,
) -> Tensor:
    """BatchNorm, its running statistics and its count of batches; see `normkit.functional.batch_norm`."""
    mean, var, batches = tracked
    floating = [t for t in (mean, var, weight, bias) if t is not None]
    if training and (momentum is None or any(t.dtype != input.dtype for t in floating)):
        return _train_in_parts(input, tracked, weight, bias, momentum, _valid(eps))
    x, mean, var, weight, bias = _alike(input, mean, var, weight, bias)
    y = F.batch_norm(x, mean, var, weight, bias, training, momentum or 0.0, _valid(eps))
    if training and batches is not None:
        batches.add_(1)
    return _back(y, input)


def _train_in_parts(
    input: Tensor,
    tracked: tuple[Tensor | None, Tensor | None, Tensor | None],
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float | None,
    eps: float,
) -> Tensor:
    """What PyTorch's call cannot: an average of all batches, running statistics of another dtype."""
    count = input.numel() // input.shape[1]
    if count == 1:
        raise RuntimeError("normkit: refused")
    if count == 0:  # nothing to learn from, but a batch all the same, as PyTorch has it
        tracked = (None, None, tracked[2])
    output, statistics = pytorch.batch_norm_train_formula(input, weight, bias, eps)
    pytorch.batch_norm_update_formula(*tracked, statistics.detach(), count, momentum)
    return output


def _valid(eps: float) -> float:
    """PyTorch takes a negative eps; we do not (`normkit._errors` says so in full)."""
    if not eps >= 0:
        raise RuntimeError("normkit: refused")
    return eps


def _alike(*tensors: Tensor | None) -> list[Any]:
    """The tensors as they are where they have one dtype, else in the one the kernels compute in."""
    same = len({t.dtype for t in tensors if t is not None}) == 1
    return list(tensors) if same else _accumulated(*tensors)


def _accumulated(*tensors: Tensor | None) -> list[Any]:
    """The tensors in the dtype that the kernels compute in, which the first of them says."""
    assert tensors[0] is not None
    dtype = pytorch.accumulation_dtype(tensors[0].dtype)
    return [t if t is None or t.dtype == dtype else t.to(dtype) for t in tensors]


def _back(output: Tensor, input: Tensor) -> Tensor:
    """The output in the input's dtype; nothing is written down where it is in it."""
    return output if output.dtype == input.dtype else output.to(input.dtype)
