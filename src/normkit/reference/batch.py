"""Batch normalization: each channel is normalized over the samples and positions of a batch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy.typing as npt

from normkit.recipe import BATCH_NORM
from normkit.reference import checks
from normkit.reference.core import (
    Array,
    Gradients,
    Operands,
    Statistics,
    normalize,
    normalize_backward,
    precise,
)


class BatchNormResult(NamedTuple):
    """The output, and the running statistics as they are after the call; ``None`` where none were given."""

    output: Array
    running_mean: Array | None
    running_var: Array | None
    num_batches_tracked: int | None


def batch_norm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None,
    running_var: npt.ArrayLike | None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    num_batches_tracked: int | None = None,
) -> BatchNormResult:
    """Normalize each channel by statistics of the batch in training, by running ones in inference.

        mu_B      = 1/m sum_i x_i
        sigma_B^2 = 1/m sum_i (x_i - mu_B)^2
        x_hat     = (x - mu_B) / sqrt(sigma_B^2 + eps)
        y         = gamma x_hat + beta

        running_mean <- (1 - momentum) running_mean + momentum mu_B
        running_var  <- (1 - momentum) running_var  + momentum m/(m-1) sigma_B^2

    x: ``(N, C, *)``, m elements in each channel. running_mean, running_var, mu_B, sigma_B^2: ``(C,)``.
    weight (gamma), bias (beta): ``(C,)``, or ``None`` for 1 and 0. y: the shape of x. Everything
    comes back in float64 (in longdouble where an argument is longdouble), and no argument is changed.

    Inference puts the running statistics in the place of mu_B and sigma_B^2; where they are
    ``None`` the batch's own are used in inference too, as `torch.nn.BatchNorm2d` does, and nothing
    is tracked. momentum ``None`` keeps the average over all batches, which needs
    num_batches_tracked. As in PyTorch, a batch without elements counts as tracked and leaves the
    running statistics as they were.

    TypeError where an array is not floating, a number not a number or training not a bool;
    ValueError where a shape does not fit, eps is negative, only one of the running statistics is
    given, or a channel has one value where statistics of the batch are needed.

    Ioffe & Szegedy 2015, arXiv:1502.03167.

    >>> result = batch_norm([[1.0], [3.0]], [0.0], [1.0], training=True, eps=0.0)
    >>> result.output
    array([[-1.],
           [ 1.]])
    >>> result.running_mean, result.running_var
    (array([0.2]), array([1.1]))
    """
    operands = _operands(x, running_mean, running_var, weight, bias, training, eps)
    running = _running(running_mean, running_var, operands.shape)
    momentum = None if momentum is None else checks.number("momentum", momentum)
    tracked = (
        None if num_batches_tracked is None else checks.count("num_batches_tracked", num_batches_tracked)
    )
    if running is None:
        return BatchNormResult(normalize(operands).output, None, None, tracked)
    if not training:
        return BatchNormResult(normalize(operands).output, *running, tracked)
    factor = _factor(momentum, tracked)
    output, batch = normalize(operands)
    running = _track(running, batch, _values_per_channel(operands.x), factor)
    return BatchNormResult(output, *running, None if tracked is None else tracked + 1)


def batch_norm_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None,
    running_var: npt.ArrayLike | None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    training: bool = False,
    eps: float = 1e-5,
) -> Gradients:
    """Give the gradients of `batch_norm` for an upstream gradient.

        g      = gamma dy
        dx     = (g - mean(g) - x_hat mean(g x_hat)) / sqrt(sigma_B^2 + eps)    in training
               | g / sqrt(running_var + eps)                                    in inference
        dgamma = sum over samples and positions of dy x_hat
        dbeta  = sum over samples and positions of dy

    grad_output (dy), dx: the shape of x. dgamma, dbeta: ``(C,)``, or ``None`` where there is no
    weight or bias. The means are over samples and positions. The running statistics are those
    given to `batch_norm`; in training they do not matter.

    Errors as in `batch_norm`; ValueError where grad_output has not the shape of x.

    Ioffe & Szegedy 2015, arXiv:1502.03167; derived in docs/derivations/batch_norm.md.

    >>> batch_norm_backward([[4.0], [6.0]], [[1.0], [3.0]], [0.0], [4.0], eps=0.0).grad_input
    array([[2.],
           [3.]])
    """
    operands = _operands(x, running_mean, running_var, weight, bias, training, eps)
    return normalize_backward(checks.grad_output(grad_output, operands.x), operands)


def _operands(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None,
    running_var: npt.ArrayLike | None,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    training: bool,
    eps: float,
) -> Operands:
    recipe = replace(BATCH_NORM, eps=checks.eps(eps))
    array = checks.floating("x", x)
    if array.ndim < 2:
        raise ValueError(f"x must have at least 2 axes, (N, C, *), got shape {array.shape}")
    shape = array.shape[1:2]
    running = _running(running_mean, running_var, shape)
    fixed = None if checks.flag("training", training) else running
    if fixed is None and _values_per_channel(array) == 1:
        raise ValueError(
            "x must have more than 1 value per channel where the batch's own statistics are used, "
            f"got shape {array.shape}"
        )
    gamma = checks.maybe_of_shape("weight", weight, shape, _WHOSE)
    beta = checks.maybe_of_shape("bias", bias, shape, _WHOSE)
    return Operands(array, recipe, shape, gamma, beta, fixed)


_WHOSE = "one value per channel of x"


def _running(
    running_mean: npt.ArrayLike | None, running_var: npt.ArrayLike | None, shape: tuple[int, ...]
) -> Statistics | None:
    mean = checks.maybe_of_shape("running_mean", running_mean, shape, _WHOSE)
    var = checks.maybe_of_shape("running_var", running_var, shape, _WHOSE)
    if mean is not None and var is not None:
        return Statistics(precise(mean), precise(var))
    if mean is not None or var is not None:
        missing, given = ("running_mean", "running_var") if mean is None else ("running_var", "running_mean")
        raise ValueError(f"{missing} must be an array where {given} is one (or both None), got None")
    return None


def _factor(momentum: float | None, tracked: int | None) -> float:
    if momentum is not None:
        return momentum
    if tracked is None:
        raise ValueError(
            "num_batches_tracked must be an integer where momentum is None (the cumulative average), got None"
        )
    return 1 / (tracked + 1)


def _track(running: Statistics, batch: Statistics, m: int, factor: float) -> Statistics:
    if m == 0:
        return running
    # The batch's variance is measured from the batch's own mean, which makes it too small an
    # estimate of the variance of the data by the factor (m - 1) / m.
    unbiased = batch.var.reshape(-1) * m / (m - 1)
    return Statistics(
        (1 - factor) * running.mean + factor * batch.mean.reshape(-1),
        (1 - factor) * running.var + factor * unbiased,
    )


def _values_per_channel(x: Array) -> int:
    return math.prod((x.shape[0], *x.shape[2:]))
