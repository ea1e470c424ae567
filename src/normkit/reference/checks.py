"""Errors of a user's making: each names the argument, what it was and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import SupportsIndex, get_args

import numpy as np
import numpy.typing as npt

from normkit.recipe import EpsMode, Recipe
from normkit.reference.core import Array, Axes, Operands


def floating(name: str, value: npt.ArrayLike) -> Array:
    """``value`` as an array of floating dtype."""
    array = np.asarray(value)
    if array.dtype.kind != "f":
        raise TypeError(
            f"{name} must be an array of a floating dtype (float16, float32, float64, longdouble), "
            f"got dtype {array.dtype}"
        )
    return array


def of_shape(name: str, value: npt.ArrayLike, shape: Axes, whose: str) -> Array:
    """``value`` as a floating array of exactly ``shape``; ``whose`` says where the shape is from."""
    array = floating(name, value)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, {whose}, got shape {array.shape}")
    return array


def maybe_of_shape(name: str, value: npt.ArrayLike | None, shape: Axes, whose: str) -> Array | None:
    """The same, for an argument that may be ``None``."""
    return None if value is None else of_shape(name, value, shape, whose)


def grad_output(value: npt.ArrayLike, x: Array) -> Array:
    """An upstream gradient, in the shape of the output, which is that of x."""
    return of_shape("grad_output", value, x.shape, "the shape of x")


def number(name: str, value: object) -> float:
    """A finite real number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a real number, got {value!r} of type {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return float(value)


def eps(value: object) -> float:
    """A finite number that is not negative."""
    checked = number("eps", value)
    if checked < 0:
        raise ValueError(f"eps must be 0 or more, got {value!r}")
    return checked


def eps_mode(value: EpsMode) -> EpsMode:
    """One of the two places for eps."""
    if value not in get_args(EpsMode):
        raise ValueError(f"eps_mode must be one of {get_args(EpsMode)}, got {value!r}")
    return value


def flag(name: str, value: object) -> bool:
    """True or False and nothing like them: a number here is an argument out of its place."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type(value).__name__}")
    return bool(value)


def count(name: str, value: object) -> int:
    """A whole number, 0 or more."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} must be 0 or more, got {value!r}")
    return int(value)


def row_operands(
    x: npt.ArrayLike,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex],
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    recipe: Recipe,
) -> Operands:
    """The operands of a norm over the trailing axes of x."""
    array = floating("x", x)
    shape = _normalized_shape(normalized_shape)
    if array.ndim < len(shape) or array.shape[array.ndim - len(shape) :] != shape:
        raise ValueError(
            "normalized_shape must be the shape of the trailing axes of x, "
            f"got {shape} for x of shape {array.shape}"
        )
    whose = "the normalized_shape"
    gamma = maybe_of_shape("weight", weight, shape, whose)
    beta = maybe_of_shape("bias", bias, shape, whose)
    return Operands(array, recipe, shape, gamma, beta)


def _normalized_shape(value: SupportsIndex | Sequence[SupportsIndex]) -> Axes:
    sizes = value if isinstance(value, Sequence) else (value,)
    try:
        shape = tuple(size.__index__() for size in sizes)
    except AttributeError:
        raise TypeError(f"normalized_shape must be an integer or a sequence of them, got {value!r}") from None
    if not shape:
        raise ValueError(f"normalized_shape must name at least one axis, got {value!r}")
    return shape
