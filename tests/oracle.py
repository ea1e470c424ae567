"""One norm, three ways: normkit's, PyTorch's and the reference's; and how far a result is from right.

A `RowNorm` or `BatchNorm` here is a call with everything fixed but its tensors. `run` gives output
and gradients, `distances` their distance from the reference in the units of `tests.tolerances`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

import normkit as nk
from normkit import reference
from tests import tolerances


class Operands(NamedTuple):
    x: torch.Tensor
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    grad_output: torch.Tensor


class Results(NamedTuple):
    output: Any
    grad_input: Any
    grad_weight: Any
    grad_bias: Any


def exact(tensor, precision=np.float64):
    """The values of a tensor in float64, which holds every one of our dtypes exactly, or beyond."""
    return None if tensor is None else tensor.detach().double().numpy().astype(precision, copy=False)


@dataclass(frozen=True)
class RowNorm:
    """LayerNorm or RMSNorm over the last `trailing` dimensions; options are keywords of the function."""

    name: str
    trailing: int = 1
    options: dict = field(default_factory=dict)

    def __str__(self):
        return "-".join([self.name, *map(str, self.options.values())])

    def _eps(self, x):
        given = self.options.get("eps", 1e-5 if self.name == "layer_norm" else None)
        return torch.finfo(x.dtype).eps if given is None else given

    def shape(self, x):
        return tuple(x.shape[x.ndim - self.trailing :])

    def parameter_shape(self, x):
        return self.shape(x)

    def ours(self, x, weight=None, bias=None):
        if self.name == "layer_norm":
            return nk.functional.layer_norm(x, self.shape(x), weight, bias, **self.options)
        return nk.functional.rms_norm(x, self.shape(x), weight, bias=bias, **self.options)

    def pytorch(self, x, weight=None, bias=None):
        assert self.options.keys() <= {"eps"}, "PyTorch has no such variant"
        if self.name == "layer_norm":
            return F.layer_norm(x, self.shape(x), weight, bias, **self.options)
        y = F.rms_norm(x, self.shape(x), weight, **self.options)
        return y if bias is None else y + bias

    def expected(self, o: Operands, precision=np.float64) -> Results:
        x, weight, bias, grad_output = (exact(t, precision) for t in o)
        options = {**self.options, "eps": self._eps(o.x)}
        shape = self.shape(x)
        if self.name == "layer_norm":
            y = reference.layer_norm(x, shape, weight, bias, **options)
            return Results(y, *reference.layer_norm_backward(grad_output, x, shape, weight, bias, **options))
        y = reference.rms_norm(x, shape, weight, bias=bias, **options)
        return Results(y, *reference.rms_norm_backward(grad_output, x, shape, weight, bias=bias, **options))

    def grouped(self, a):
        """(groups, n): a group's elements share statistics."""
        return a.reshape(int(np.prod(a.shape[: a.ndim - self.trailing])), -1)

    def by_parameter(self, grouped):
        """(elements of the parameter, terms of its gradient)."""
        return grouped.T

    def statistics(self, o: Operands, precision=np.float64):
        """x_hat and 1/root, grouped, and how much the root depends on x."""
        d = self.grouped(exact(o.x, precision))
        if self.name == "layer_norm":
            d = d - d.mean(1, keepdims=True)
        var, eps = np.square(d).mean(1, keepdims=True), self._eps(o.x)
        if self.options.get("eps_mode") == "outside":
            root = np.sqrt(var)
            slope = np.divide(root + eps, root, where=root > 0, out=np.zeros_like(root))
            return d / (root + eps), 1 / (root + eps), slope
        rstd = 1 / np.sqrt(var + eps)
        return d * rstd, rstd, np.ones_like(rstd)

    def gain(self, o: Operands):
        """The gain of every element, grouped."""
        if o.weight is None:
            return 1.0
        return (exact(o.weight) + self.options.get("gain_offset", 0.0)).reshape(1, -1)


@dataclass(frozen=True)
class BatchNorm:
    """BatchNorm in training, or with the statistics given."""

    running: tuple[torch.Tensor, torch.Tensor] | None = None  # given: inference
    options: dict = field(default_factory=dict)

    def __str__(self):
        return "batch_norm-" + ("train" if self.running is None else "eval")

    def parameter_shape(self, x):
        return tuple(x.shape[1:2])

    def _call(self, function, x, weight, bias):
        training = self.running is None
        return function(x, *(self.running or (None, None)), weight, bias, training, **self.options)

    def ours(self, x, weight=None, bias=None):
        return self._call(nk.functional.batch_norm, x, weight, bias)

    def pytorch(self, x, weight=None, bias=None):
        return self._call(F.batch_norm, x, weight, bias)

    def expected(self, o: Operands, precision=np.float64) -> Results:
        x, weight, bias, grad_output = (exact(t, precision) for t in o)
        running = (exact(t, precision) for t in self.running or (None, None))
        arguments = (x, *running, weight, bias, self.running is None)
        return Results(
            reference.batch_norm(*arguments, **self.options).output,
            *reference.batch_norm_backward(grad_output, *arguments, **self.options),
        )

    def grouped(self, a):
        return np.moveaxis(a, 1, 0).reshape(a.shape[1], -1)

    def by_parameter(self, grouped):
        return grouped

    def statistics(self, o: Operands, precision=np.float64):
        x, eps = self.grouped(exact(o.x, precision)), self.options.get("eps", 1e-5)
        if self.running is not None:
            mean, var = (exact(t).reshape(-1, 1) for t in self.running)
        else:
            mean, var = x.mean(1, keepdims=True), x.var(1, keepdims=True)
        rstd = 1 / np.sqrt(var + eps)
        slope = np.full_like(rstd, self.running is None)
        return (x - mean) * rstd, rstd, slope

    def gain(self, o: Operands):
        return 1.0 if o.weight is None else exact(o.weight).reshape(-1, 1)


def run(function, o: Operands) -> Results:
    """Output and gradients of function(x, weight, bias); the tensors keep their strides."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in o[:3]]
    given = [leaf for leaf in leaves if leaf is not None]
    # Freed at once, so that memory the kernel gets and leaves unwritten is likely to hold nan.
    torch.full(o.x.shape, torch.nan, dtype=o.x.dtype)
    output = function(*leaves)
    found = iter(torch.autograd.grad(output, given, o.grad_output))
    return Results(output.detach(), *(None if leaf is None else next(found) for leaf in leaves))


def unit(scale, dtype):
    """The distance between neighbouring numbers of dtype at this size."""
    info = torch.finfo(dtype)
    _, exponent = np.frexp(np.abs(scale))
    return np.maximum(np.ldexp(info.eps, exponent - 1), info.smallest_normal * info.eps)


def scales(norm, o: Operands, expected: Results, precision=np.float64):
    """The size of what is added to make each result: it may cancel, and roundings are of its size."""
    x_hat, rstd, slope = norm.statistics(o, precision)
    g = norm.grouped(exact(o.grad_output))
    gw = np.abs(g * norm.gain(o))
    pull = np.abs(x_hat).max(1, keepdims=True) * (gw * np.abs(x_hat)).mean(1, keepdims=True) * slope
    terms = rstd * np.maximum(gw.max(1, keepdims=True), pull)
    # x_hat is off by its own roundings and by those of the mean, which are of the size of the group's
    # largest, but n of them average out.
    size = np.abs(x_hat) + np.abs(x_hat).max(1, keepdims=True) / np.sqrt(x_hat.shape[1])
    return Results(
        np.abs(norm.grouped(expected.output)).max(1, keepdims=True),
        terms,
        norm.by_parameter(np.abs(g) * size).sum(1),
        norm.by_parameter(np.abs(g)).sum(1),
    )


def errors(norm, o: Operands, results: Results, precision=np.float64) -> dict[str, np.ndarray]:
    """For each result, how far its elements are from the reference in units (see `tests.tolerances`)."""
    expected = norm.expected(o, precision)
    scale = scales(norm, o, expected, precision)
    belongs = Results(o.x, o.x, o.weight, o.bias)
    found = {}
    for name, ours, right, size, to in zip(Results._fields, results, expected, scale, belongs, strict=True):
        assert (ours is None) == (to is None), name
        if ours is not None:
            assert tuple(ours.shape) == right.shape, name
            assert ours.dtype == to.dtype, name
            view = norm.grouped if to is o.x else np.ravel
            error = _units(name, view(exact(ours)), view(right), size, ours.dtype, accumulated(o.x.dtype))
            found[name] = np.where(np.isnan(error), np.inf, error)
    return found


def distances(norm, o: Operands, results: Results) -> dict[str, float]:
    """For each result, its largest distance from the reference in units."""
    return {name: float(np.max(e, initial=0.0)) for name, e in errors(norm, o, results).items()}


def accumulated(dtype):
    """What a norm of dtype is computed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _units(name, ours, right, size, dtype, computed):
    if not _is_narrow(dtype, computed):
        return np.abs(ours - right) / unit(size, computed)
    # Rounded once more at the end: to be compared with the reference rounded to the same dtype.
    largest = np.abs(right).max(1, keepdims=True) if right.ndim == 2 else right
    error = np.abs(ours - exact(torch.from_numpy(right.astype(np.float64)).to(dtype)))
    before = 0 if name == "output" else allowed(name, computed, computed) * unit(size, computed)
    return np.maximum(error - before, 0) / unit(largest, dtype)


def _is_narrow(dtype, computed):
    return torch.finfo(dtype).eps > torch.finfo(computed).eps


def allowed(name, dtype, computed):
    """The table of tolerances, by result, its dtype and the dtype it is computed in."""
    if _is_narrow(dtype, computed):
        return tolerances.NARROW
    if computed == torch.float64:
        return tolerances.FLOAT64 / torch.finfo(computed).eps
    return {
        "output": tolerances.OUTPUT,
        "grad_input": tolerances.GRAD_INPUT,
        "grad_weight": tolerances.GRAD_PARAMETER,
        "grad_bias": tolerances.GRAD_PARAMETER,
    }[name]


def assert_right(norm, o: Operands, results: Results, about="", room=1):
    """Every result is as near to the reference as the table asks."""
    for name, distance in distances(norm, o, results).items():
        limit = allowed(name, getattr(results, name).dtype, accumulated(o.x.dtype)) * room
        assert distance <= limit, (
            f"{norm} {about}: {name} is off by {distance:.3g} units, allowed {limit:.3g}"
        )
