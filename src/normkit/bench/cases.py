"""What is measured: an operator on a shape, in a dtype and a memory format, in one or both directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = [
    "DIRECTIONS",
    "DTYPES",
    "GROUPS",
    "LARGE",
    "OPS",
    "Case",
    "Shape",
    "chosen",
    "full",
    "parse_shape",
    "quick",
]

Shape = tuple[int, ...]

ROW_OPS = ("rms_norm", "layer_norm")
CHANNEL_OPS = ("batch_norm_training", "batch_norm_inference")
OPS = (*ROW_OPS, *CHANNEL_OPS)
DIRECTIONS = ("forward", "forward+backward", "backward")
DTYPES = ("float32", "bfloat16", "float16", "float64")
DEFAULT_DTYPES = ("float32", "bfloat16")
EPS = 2.0**-17  # near the usual 1e-5, and the same number in every dtype and file format
MOMENTUM = 0.1
LARGE = 2**20  # bytes: from here on an output's pages, and a share of the floor, mean something

# Row norms normalize the last dimension, BatchNorm all but dimension 1.
_ROWS: dict[str, tuple[Shape, ...]] = {
    "single": ((1, 64), (1, 256), (1, 1024), (1, 4096), (1, 16384)),
    "decode": ((1, 4096), (2, 4096), (4, 4096), (8, 4096), (16, 4096)),
    "bert": ((8192, 768),),
    "llm": ((512, 4096), (4096, 4096), (2048, 5120), (2048, 8192)),
    "vit": ((64, 197, 768),),
    "odd": ((2048, 1000), (2048, 1025), (2048, 333)),
}
_CHANNELS: dict[str, tuple[Shape, ...]] = {
    "cnn": ((32, 64, 56, 56), (16, 256, 28, 28), (8, 2048, 7, 7), (64, 32, 31, 31)),
    "bn1d": ((128, 512), (4096, 1024)),
}
# A GPU's: tensors of 512 MB and more in every dtype, past any cache.
_GPU_ROWS: dict[str, tuple[Shape, ...]] = {
    "widths": tuple((2**28 // n, n) for n in (2**k for k in range(8, 19)))
}
_GPU_CHANNELS: dict[str, tuple[Shape, ...]] = {
    "images": ((1024, 64, 64, 64), (1024, 256, 32, 32), (2048, 2048, 8, 8)),
}
GROUPS = {**_ROWS, **_CHANNELS, **_GPU_ROWS, **_GPU_CHANNELS}
_FULL = {"cpu": {**_ROWS, **_CHANNELS}, "cuda": GROUPS}
_QUICK: dict[str, tuple[Shape, ...]] = {
    "cpu": ((1, 4096), (512, 4096), (32, 64, 56, 56)),
    "cuda": ((1, 4096), (8192, 4096), (65536, 4096), (4096, 65536), (1024, 64, 64, 64)),
}


@dataclass(frozen=True)
class Case:
    """One row of the bench.

    op: "rms_norm" or "layer_norm" over the last dimension, "batch_norm_training" or
        "batch_norm_inference" over all but dimension 1.
    direction: "forward" as in serving; "forward+backward" as in training; "backward" alone, from the
        graph of one forward pass.
    dtype: of the data, the weights and the running statistics.
    channels_last: whether a tensor of four dimensions is laid out with its channels last.
    """

    op: str
    shape: Shape
    direction: str
    dtype: str = "float32"
    channels_last: bool = False

    def __str__(self) -> str:
        return f"{self.dtype} {self.op} {self.shape_name} {self.direction}"

    @property
    def shape_name(self) -> str:
        """The shape as `32x64x56x56`, with the memory format where it is not the usual one."""
        return "x".join(map(str, self.shape)) + (" channels-last" if self.channels_last else "")

    @property
    def is_row_norm(self) -> bool:
        """Whether the elements of a row, rather than of a channel, share statistics."""
        return self.op in ROW_OPS

    @property
    def features(self) -> int:
        """Elements of weight and bias."""
        return self.shape[-1] if self.is_row_norm else self.shape[1]

    @property
    def sharing(self) -> int:
        """Elements that share statistics: a row's, or those of a channel."""
        return self.shape[-1] if self.is_row_norm else math.prod(self.shape) // self.shape[1]

    @property
    def summed(self) -> int:
        """Terms in each element of a weight's gradient."""
        return math.prod(self.shape) // self.features

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the input, which are those of the output and of their gradients."""
        itemsize: int = getattr(torch, self.dtype).itemsize
        return math.prod(self.shape) * itemsize

    @property
    def is_large(self) -> bool:
        """Whether the input holds more than 1 MB."""
        return self.tensor_bytes > LARGE


def full(
    ops: Sequence[str] = OPS,
    dtypes: Sequence[str] = DEFAULT_DTYPES,
    directions: Sequence[str] | None = None,
    device: str = "cpu",
) -> tuple[Case, ...]:
    """Every case of the bench, each once."""
    shapes = tuple(dict.fromkeys(shape for group in _FULL[device].values() for shape in group))
    return _product(shapes, ops, dtypes, directions)


def quick(
    ops: Sequence[str] = OPS,
    dtypes: Sequence[str] = DEFAULT_DTYPES,
    directions: Sequence[str] | None = None,
    device: str = "cpu",
) -> tuple[Case, ...]:
    """A few minutes' worth: a token being decoded, a sequence, a batch of images."""
    return _product(_QUICK[device], ops, dtypes, directions)


def chosen(
    shapes: Sequence[Shape],
    ops: Sequence[str] = OPS,
    dtypes: Sequence[str] = DEFAULT_DTYPES,
    directions: Sequence[str] | None = None,
) -> tuple[Case, ...]:
    """The cases of these shapes with those of the operators that each is meant for; with all, where none is.

    BatchNorm is meant for four and five dimensions and for the group "bn1d", row norms for the others.
    """
    return _product(shapes, ops, dtypes, directions, any_op=True)


def _product(
    shapes: Sequence[Shape],
    ops: Sequence[str],
    dtypes: Sequence[str],
    directions: Sequence[str] | None,
    any_op: bool = False,
) -> tuple[Case, ...]:
    """All combinations that make sense.

    directions None: forward and forward + backward, and for large row norms backward alone. BatchNorm of
    a tensor of four dimensions counts in both memory formats.
    """
    found = [
        Case(op, shape, direction, dtype, channels_last)
        for shape in shapes
        for op in ([op for op in ops if op in _meant_for(shape)] or (ops if any_op else ()))
        for dtype in dtypes
        for channels_last in ((False, True) if op in CHANNEL_OPS and len(shape) == 4 else (False,))
        for direction in directions or DIRECTIONS
    ]
    return tuple(dict.fromkeys(case for case in found if _is_possible(case) and (directions or _tells(case))))


def _meant_for(shape: Shape) -> tuple[str, ...]:
    return CHANNEL_OPS if len(shape) >= 4 or shape in GROUPS["bn1d"] else ROW_OPS


def _is_possible(case: Case) -> bool:
    if case.is_row_norm:
        return True
    return len(case.shape) <= 5 and (case.sharing > 1 or case.op == "batch_norm_inference")


def _tells(case: Case) -> bool:
    # A short backward pass alone is mostly autograd's own time, and no floor is promised for BatchNorm's.
    return case.direction != "backward" or (case.is_row_norm and case.is_large)


def parse_shape(text: str) -> tuple[Shape, ...]:
    """The shapes of a group's name, or the one written as `512x4096`.

    Raises ValueError where it is neither.
    """
    if text in GROUPS:
        return GROUPS[text]
    parts = text.split("x")
    if len(parts) >= 2 and all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        return (tuple(map(int, parts)),)
    raise ValueError(f"must be sizes such as 512x4096, or one of {', '.join(GROUPS)}; got {text!r}")
