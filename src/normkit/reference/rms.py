"""RMS normalization: each sample is divided by the root mean square of its own features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import SupportsIndex

import numpy.typing as npt

from normkit.recipe import RMS_NORM, EpsMode
from normkit.reference import checks
from normkit.reference.core import Array, Gradients, Operands, normalize, normalize_backward


def rms_norm(
    x: npt.ArrayLike,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex],
    weight: npt.ArrayLike | None = None,
    eps: float | None = None,
    *,
    bias: npt.ArrayLike | None = None,
    eps_mode: EpsMode = "inside",
    gain_offset: float = 0.0,
) -> Array:
    """Divide each sample by the root mean square of its features.

        x_hat = x / sqrt(mean(x^2) + eps)       eps_mode "inside"
              | x / (sqrt(mean(x^2)) + eps)     eps_mode "outside"
        y     = (gain_offset + gamma) x_hat + beta

    x: ``(*, *normalized_shape)``; the mean is over the normalized axes. weight (gamma), bias
    (beta): ``normalized_shape``, or ``None``. Without a weight the gain is 1: gain_offset is
    added to a weight and means nothing without one. y: the shape of x, in float64 (in longdouble
    where an argument is longdouble). eps ``None``: the machine epsilon of the dtype of x;
    NumPy has no bfloat16, so its epsilon (2**-7) must be given.

    TypeError where an array is not floating or a number not a number; ValueError where a shape
    does not fit, eps is negative, gain_offset is not finite or eps_mode is neither of the two.

    Zhang & Sennrich 2019, arXiv:1910.07467.

    >>> rms_norm([[1.0, 7.0]], 2, eps=0.0)
    array([[0.2, 1.4]])
    >>> rms_norm([[1.0, 7.0]], 2, weight=[0.0, 1.0], eps=5.0, eps_mode="outside", gain_offset=1.0)
    array([[0.1, 1.4]])
    """
    return normalize(_operands(x, normalized_shape, weight, eps, bias, eps_mode, gain_offset)).output


def rms_norm_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex],
    weight: npt.ArrayLike | None = None,
    eps: float | None = None,
    *,
    bias: npt.ArrayLike | None = None,
    eps_mode: EpsMode = "inside",
    gain_offset: float = 0.0,
) -> Gradients:
    """Give the gradients of `rms_norm` for an upstream gradient.

        g      = (gain_offset + gamma) dy
        r      = sqrt(mean(x^2) + eps)         eps_mode "inside"
               | sqrt(mean(x^2)) + eps         eps_mode "outside"
        dx     = (g - s mean(g x_hat)) / r     s = x_hat inside, x / sqrt(mean(x^2)) outside
        dgamma = sum over samples of dy x_hat
        dbeta  = sum over samples of dy

    grad_output (dy), dx: the shape of x. dgamma, dbeta: ``normalized_shape``, or ``None`` where
    there is no weight or bias. A row of zeros with eps outside has the limit, ``dx = g / eps``.

    Errors as in `rms_norm`; ValueError where grad_output has not the shape of x.

    Zhang & Sennrich 2019, arXiv:1910.07467; derived in docs/derivations/rms_norm.md.

    >>> rms_norm_backward([[5.0, 0.0]], [[1.0, 7.0]], 2, eps=0.0).grad_input
    array([[ 0.98, -0.14]])
    """
    operands = _operands(x, normalized_shape, weight, eps, bias, eps_mode, gain_offset)
    return normalize_backward(checks.grad_output(grad_output, operands.x), operands)


def _operands(
    x: npt.ArrayLike,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex],
    weight: npt.ArrayLike | None,
    eps: float | None,
    bias: npt.ArrayLike | None,
    eps_mode: EpsMode,
    gain_offset: float,
) -> Operands:
    recipe = replace(
        RMS_NORM,
        eps=None if eps is None else checks.eps(eps),
        eps_mode=checks.eps_mode(eps_mode),
        gain_offset=checks.number("gain_offset", gain_offset),
    )
    return checks.row_operands(x, normalized_shape, weight, bias, recipe)
