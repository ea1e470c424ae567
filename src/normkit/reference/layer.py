"""Layer normalization: each sample is normalized over its own features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import SupportsIndex

import numpy.typing as npt

from normkit.recipe import LAYER_NORM
from normkit.reference import checks
from normkit.reference.core import Array, Gradients, Operands, normalize, normalize_backward


def layer_norm(
    x: npt.ArrayLike,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex],
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
) -> Array:
    """Normalize each sample by the mean and the biased variance of its features.

        mu      = 1/H sum_i x_i
        sigma^2 = 1/H sum_i (x_i - mu)^2
        x_hat   = (x - mu) / sqrt(sigma^2 + eps)
        y       = gamma x_hat + beta

    x: ``(*, *normalized_shape)``, H elements in the normalized axes. mu, sigma^2: one per sample.
    weight (gamma), bias (beta): ``normalized_shape``, or ``None`` for 1 and 0. y: the shape of x,
    in float64 (in longdouble where an argument is longdouble).

    TypeError where an array is not floating or a number not a number; ValueError where a shape
    does not fit or eps is negative.

    Ba, Kiros & Hinton 2016, arXiv:1607.06450.

    >>> layer_norm([[1.0, 3.0], [10.0, 30.0]], 2, eps=0.0)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    return normalize(_operands(x, normalized_shape, weight, bias, eps)).output


def layer_norm_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex],
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
) -> Gradients:
    """Give the gradients of `layer_norm` for an upstream gradient.

        g      = gamma dy
        dx     = (g - mean(g) - x_hat mean(g x_hat)) / sqrt(sigma^2 + eps)
        dgamma = sum over samples of dy x_hat
        dbeta  = sum over samples of dy

    grad_output (dy), dx: the shape of x. dgamma, dbeta: ``normalized_shape``, or ``None`` where
    there is no weight or bias. The means are over the normalized axes.

    Errors as in `layer_norm`; ValueError where grad_output has not the shape of x.

    Ba, Kiros & Hinton 2016, arXiv:1607.06450; derived in docs/derivations/layer_norm.md.

    >>> layer_norm_backward([[1.0, 2.0, 6.0]], [[-2.0, 0.0, 2.0]], 3, eps=0.0).grad_input.round(4)
    array([[ 0.3062, -0.6124,  0.3062]])
    """
    operands = _operands(x, normalized_shape, weight, bias, eps)
    return normalize_backward(checks.grad_output(grad_output, operands.x), operands)


def _operands(
    x: npt.ArrayLike,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex],
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    eps: float,
) -> Operands:
    recipe = replace(LAYER_NORM, eps=checks.eps(eps))
    return checks.row_operands(x, normalized_shape, weight, bias, recipe)
