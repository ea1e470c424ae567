"""The operands of a call: data of a kind, parameters or none, an upstream gradient, a memory layout."""

import itertools

import numpy as np

from tests.data import KINDS, normal, parameters, rng, tensor
from tests.oracle import BatchNorm, Operands, RowNorm, exact

AFFINE = list(itertools.product((True, False), repeat=2))  # with weight, with bias


def row_operands(kind, width, dtype, affine=True, rows=5, weight_dtype=None):
    """A row norm's operands: each row is one group of this kind of data."""
    r = rng(kind, width, rows, affine)
    x = tensor(KINDS[kind](r, rows, width), dtype)
    weight, bias = parameters(r, width, weight_dtype or dtype) if affine else (None, None)
    return Operands(x, weight, bias, tensor(r.standard_normal((rows, width)), dtype))


def channel_operands(kind, shape, dtype, affine=True, weight_dtype=None):
    """BatchNorm's operands; the elements of a channel are one group of this kind of data."""
    r = rng(kind, shape, affine)
    channels = shape[1]
    others = (shape[0], *shape[2:])
    data = KINDS[kind](r, channels, int(np.prod(others))).reshape(channels, *others)
    weight, bias = parameters(r, channels, weight_dtype or dtype) if affine else (None, None)
    x = tensor(np.moveaxis(data, 0, 1), dtype)
    return Operands(x, weight, bias, tensor(r.standard_normal(shape), dtype))


def running_statistics(x, dtype=None):
    """Statistics such as training would have left: near those of x, but not those."""
    r = rng("running", tuple(x.shape))
    data = BatchNorm().grouped(exact(x))
    mean, var = data.mean(1) + r.standard_normal(len(data)) * 0.5, data.var(1) + r.uniform(0.5, 1, len(data))
    return tensor(mean, dtype or x.dtype), tensor(np.minimum(var, 1e4), dtype or x.dtype)


def channels_last(o):
    """The same operands, channels adjacent in memory."""
    x, grad = (t.movedim(1, -1).contiguous().movedim(-1, 1) for t in (o.x, o.grad_output))
    return o._replace(x=x, grad_output=grad)


def operands(norm, shape, dtype, weight_dtype=None, affine=(True, True), bias_dtype=None):
    """Normal data for any norm, with a weight or a bias or both."""
    x, grad = normal(shape, dtype, "x") * 2 + 1, normal(shape, dtype, "grad")
    r = rng("parameters", tuple(shape))
    weight, bias = parameters(r, norm.parameter_shape(x), weight_dtype or dtype)
    bias = bias.to(bias_dtype or weight_dtype or dtype)
    return Operands(x, weight if affine[0] else None, bias if affine[1] else None, grad)


def every_norm(channels, dtype):
    """LayerNorm, RMSNorm and its variants, BatchNorm in training and in inference."""
    r = rng("running", channels)
    running = (tensor(r.standard_normal(channels), dtype), tensor(r.uniform(0.5, 2, channels), dtype))
    return [
        RowNorm("layer_norm"),
        RowNorm("rms_norm"),
        RowNorm("rms_norm", options={"eps": 0.3, "eps_mode": "outside", "gain_offset": 1.0}),
        BatchNorm(),
        BatchNorm(running),
    ]
