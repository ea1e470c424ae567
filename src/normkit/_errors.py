"""What was wrong with a call: the argument, what it was, and what is allowed.

The operators refuse wrong input with a bare error; these functions run only then, so that a good
call pays nothing for good messages. They return where they find no fault: the error was another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

CAUGHT = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError)

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_DTYPE_NAMES = "float64, float32, bfloat16 or float16"


def is_outside(eps_mode: str) -> bool:
    """Whether eps stands outside the root; ValueError for an unknown mode."""
    if eps_mode not in ("inside", "outside"):
        raise ValueError(f"eps_mode must be 'inside' or 'outside', got {eps_mode!r}")
    return eps_mode == "outside"


def may_train(
    tracked: tuple[Tensor | None, Tensor | None, Tensor | None], input: Tensor, momentum: float | None
) -> bool:
    """Whether a batch can be trained with, and the running statistics take it."""
    return values_per_channel(input) != 1 and may_update(tracked, input, momentum)


def values_per_channel(input: Tensor) -> int:
    """How many there are of each channel of a batch."""
    return input.numel() // max(1, input.shape[1])


def may_update(
    tracked: tuple[Tensor | None, Tensor | None, Tensor | None], input: Tensor, momentum: float | None
) -> bool:
    """Whether the running statistics can take this batch: asked before anything is changed."""
    mean, var, batches = tracked
    averaged = momentum is not None or batches is not None or (mean is None and var is None)
    return (
        averaged
        and (batches is None or _is_count(batches))
        and all(t is None or _takes(t, input) for t in (mean, var))
    )


def _takes(running: Tensor, input: Tensor) -> bool:
    return (
        running.shape == input.shape[1:2]
        and running.device == input.device
        and running.dtype in DTYPES
        and running.layout is torch.strided
        and not running.requires_grad
        and (running.numel() <= 1 or running.stride(0) != 0)
    )


def are_constants(tracked: tuple[Tensor | None, ...]) -> bool:
    """Whether no running statistic asks for a gradient: there is none."""
    return not any(t is not None and t.requires_grad for t in tracked)


def _is_count(batches: Tensor) -> bool:
    return batches.dtype is torch.int64 and batches.layout is torch.strided and batches.numel() == 1


def explain_row_norm(
    input: object,
    normalized_shape: object,
    weight: object,
    bias: object,
    eps: object,
    gain_offset: object = 0.0,
    *,
    eps_optional: bool = False,
) -> None:
    """Raise the error a wrong argument of a row norm deserves."""
    x = _floating("input", input)
    shape = _shape("normalized_shape", normalized_shape)
    if not 1 <= len(shape) <= x.dim() or tuple(x.shape[x.dim() - len(shape) :]) != shape:
        raise ValueError(
            f"normalized_shape must equal the input's trailing dimensions, got {shape} for an input of "
            f"shape {tuple(x.shape)}"
        )
    for name, parameter in (("weight", weight), ("bias", bias)):
        _parameter(name, parameter, x, shape, "normalized_shape")
    if not (eps is None and eps_optional):
        _eps(eps)
    _number("gain_offset", gain_offset)


def explain_batch_norm(
    input: object,
    running_mean: object,
    running_var: object,
    num_batches_tracked: object,
    weight: object,
    bias: object,
    training: bool,
    momentum: object,
    eps: object,
) -> None:
    """Raise the error a wrong argument of a BatchNorm deserves."""
    x = _floating("input", input)
    if x.dim() < 2:
        raise ValueError(f"input must be (N, C, *), at least 2 dimensions, got shape {tuple(x.shape)}")
    channels = (x.shape[1],)
    named = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, tensor in named.items():
        _parameter(name, tensor, x, channels, "(C,), the input's number of channels,")
    for name, running in (("running_mean", running_mean), ("running_var", running_var)):
        _running(name, running)
    if not training and (running_mean is None or running_var is None):
        missing = "running_mean" if running_mean is None else "running_var"
        raise ValueError(f"{missing} must be given in inference (training=False), got None")
    _eps(eps)
    if training and values_per_channel(x) == 1:
        raise ValueError(
            "input must have more than one value per channel in training, got shape "
            f"{tuple(x.shape)}: a single value has no variance. Use a larger batch, or training=False"
        )
    if isinstance(num_batches_tracked, Tensor):
        _count(num_batches_tracked)
    if momentum is not None:
        _number("momentum", momentum)
    elif training and num_batches_tracked is None:
        raise ValueError("momentum must be a number where batches are not counted, got None")


def _floating(name: str, value: object) -> Tensor:
    tensor = _tensor(name, value)
    if tensor.dtype not in DTYPES:
        raise TypeError(f"{name} must be {_DTYPE_NAMES}, got {_bare(tensor.dtype)}")
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {tensor.layout}")
    return tensor


def _tensor(name: str, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    return value


def _parameter(name: str, value: object, x: Tensor, shape: tuple[int, ...], rule: str) -> None:
    if value is None:
        return
    p = _floating(name, value)
    if tuple(p.shape) != shape:
        raise ValueError(f"{name} must have the shape {rule} {shape}, got {tuple(p.shape)}")
    if p.device != x.device:
        raise ValueError(f"{name} must be on the input's device {x.device}, got {p.device}")


def _shape(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or not all(isinstance(size, int) for size in value):
        raise TypeError(f"{name} must be a sequence of ints, got {value!r}")
    return tuple(value)


def _eps(value: object) -> None:
    if not _number("eps", value) >= 0:
        raise ValueError(f"eps must be a number of at least 0, got {value}")


def _running(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        return
    if value.requires_grad:
        raise ValueError(f"{name} must not require a gradient: there is none to a running statistic")
    if value.numel() > 1 and value.stride(0) == 0:
        raise ValueError(f"{name} must have memory for every element, got an expanded tensor")


def _count(batches: Tensor) -> None:
    if batches.dtype is not torch.int64:
        raise TypeError(f"num_batches_tracked must be int64, got {_bare(batches.dtype)}")
    if batches.numel() != 1:
        raise ValueError(f"num_batches_tracked must be one number, got shape {tuple(batches.shape)}")


def _number(name: str, value: object) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    return float(value)


def _bare(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
