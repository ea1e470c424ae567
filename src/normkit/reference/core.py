"""The one formula of `normkit.recipe`, forward and backward, for every norm.

    x_c   = x - mu                        mu = mean(x), or 0 where the norm is not centred
    sigma^2 = mean(x_c^2)
    root  = sqrt(sigma^2 + eps)           eps inside
          | sqrt(sigma^2) + eps           eps outside
    x_hat = x_c / root
    y     = (gain_offset + gamma) x_hat + beta

float64 is the least precision inside; longdouble arrays are computed in longdouble, which gives
tests an oracle for the oracle.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from normkit.recipe import EpsMode, Recipe

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Axes: TypeAlias = tuple[int, ...]


def precise(x: Array) -> Array:
    """A copy of x in the dtype it is computed in: float64 at least."""
    copy: Array = x.astype(np.result_type(x.dtype, np.float64))
    return copy


class Statistics(NamedTuple):
    """Mean ``mu`` and biased variance ``sigma^2`` (the mean square where a norm is not centred)."""

    mean: Array
    var: Array


class Operands(NamedTuple):
    """What a norm is computed from; both directions take the same.

    shape: of gamma and beta. Over ``"features"``: the trailing axes, which share statistics.
        Over ``"batch"``: ``(C,)``, axis 1; every other axis shares statistics.
    statistics: fixed ones of that shape, used instead of those of x (only over ``"batch"``).
    """

    x: Array
    recipe: Recipe
    shape: Axes
    gamma: Array | None = None
    beta: Array | None = None
    statistics: Statistics | None = None


class Normalized(NamedTuple):
    """The output, and the statistics it was computed with, in a shape that broadcasts against x."""

    output: Array
    statistics: Statistics


class Gradients(NamedTuple):
    """The gradient of each operand, in its shape; ``None`` where there was no such operand."""

    grad_input: Array
    grad_weight: Array | None
    grad_bias: Array | None


def normalize(operands: Operands) -> Normalized:
    """Compute ``y = (gain_offset + gamma) x_hat + beta`` as the recipe says."""
    layout = _layout(operands)
    with _ieee():
        x_hat, _, _, statistics = _standardize(operands, layout)
        y = x_hat * _gain(operands, layout)
        if operands.beta is not None:
            y = y + precise(operands.beta).reshape(layout.view)
    return Normalized(y, statistics)


def normalize_backward(grad_output: Array, operands: Operands) -> Gradients:
    """Compute the gradients of ``sum(grad_output * y)``; derived in docs/derivations."""
    layout = _layout(operands)
    dy = precise(grad_output)
    with _ieee():
        x_hat, root, slope, _ = _standardize(operands, layout)
        g = dy * _gain(operands, layout)
        if operands.statistics is None:
            # root depends on every element of x_c; mu, where there is one, on every element of x.
            dx = (g - slope * _mean(g * x_hat, layout.shared)) / root
            if operands.recipe.centred:
                dx = dx - _mean(dx, layout.shared)
        else:
            dx = g / root
        dgamma = None if operands.gamma is None else _sum_to_parameter(dy * x_hat, operands, layout)
        dbeta = None if operands.beta is None else _sum_to_parameter(dy, operands, layout)
    return Gradients(dx, dgamma, dbeta)


class _Layout(NamedTuple):
    shared: Axes  # axes of x whose elements share statistics
    summed: Axes  # axes of x along which gamma and beta are constant
    view: Axes  # gamma and beta in this shape broadcast against x


def _layout(operands: Operands) -> _Layout:
    ndim, shape = operands.x.ndim, operands.shape
    if operands.recipe.over == "features":
        lead = ndim - len(shape)
        return _Layout(tuple(range(lead, ndim)), tuple(range(lead)), (1,) * lead + shape)
    others = (0, *range(2, ndim))
    return _Layout(others, others, (1, *shape) + (1,) * (ndim - 2))


class _Standardized(NamedTuple):
    x_hat: Array
    root: Array
    slope: Array  # H * d root / d x_c for H elements that share statistics
    statistics: Statistics


def _standardize(operands: Operands, layout: _Layout) -> _Standardized:
    recipe = operands.recipe
    x_c, statistics = _deviations(operands, layout)
    eps = float(np.finfo(operands.x.dtype).eps) if recipe.eps is None else recipe.eps
    root, slope = _root(x_c, statistics.var, eps, recipe.eps_mode)
    return _Standardized(x_c / root, root, slope, statistics)


def _deviations(operands: Operands, layout: _Layout) -> tuple[Array, Statistics]:
    """Give x - mu, and the statistics."""
    x = precise(operands.x)
    if operands.statistics is not None:
        fixed = Statistics(*(precise(s).reshape(layout.view) for s in operands.statistics))
        return x - fixed.mean, fixed
    x_c, mu = _centre(x, layout.shared) if operands.recipe.centred else (x, np.zeros_like(x, shape=()))
    return x_c, Statistics(mu, _mean(np.square(x_c), layout.shared))


def _root(x_c: Array, var: Array, eps: float, eps_mode: EpsMode) -> tuple[Array, Array]:
    """Give the divisor and its slope with respect to x_c, times the number of elements."""
    if eps_mode == "inside":
        root: Array = np.sqrt(var + eps)
        return root, x_c / root
    deviation: Array = np.sqrt(var)
    # Where every x_c is 0, sqrt has no slope. Its product with x_hat = 0 goes to 0 from every
    # side, so 0 stands for it and the gradient is the limit, gain * dy / eps.
    slope = np.where(deviation == 0, np.zeros_like(x_c), x_c / deviation)
    return deviation + eps, slope


def _centre(x: Array, axes: Axes) -> tuple[Array, Array]:
    """Subtract mu; give the difference and mu.

    Where x is far from 0 a rounded mean is off by a good part of the spread of x. So the mean is
    kept as two numbers, the rounded one and the mean of what is left after subtracting it.
    """
    rounded = _mean(x, axes)
    left = x - rounded
    rest = _mean(left, axes)
    return left - rest, rounded + rest


def _gain(operands: Operands, layout: _Layout) -> Array | float:
    if operands.gamma is None:
        return 1.0
    return operands.recipe.gain_offset + precise(operands.gamma).reshape(layout.view)


def _sum_to_parameter(terms: Array, operands: Operands, layout: _Layout) -> Array:
    total: Array = np.sum(terms, axis=layout.summed)
    return total.reshape(operands.shape)


def _mean(x: Array, axes: Axes) -> Array:
    # np.mean warns about the mean of nothing; the quotient says the same, nan, in silence.
    total: Array = np.sum(x, axis=axes, keepdims=True)
    return total / int(np.prod([x.shape[axis] for axis in axes]))


def _ieee() -> np.errstate:
    """Let 0/0, 1/0 and overflow give nan and inf in silence: that is what the formula gives there.

    They come from an infinite or nan input, from eps = 0 on a constant row, and from the mean of
    no elements.
    """
    return np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore")
