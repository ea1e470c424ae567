"""In float64, outputs and gradients are PyTorch's to 1e-12."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import normkit as nk
from tests import tolerances
from tests.data import normal, rng, tensor
from tests.operands import AFFINE, channels_last, operands
from tests.oracle import BatchNorm, Results, RowNorm, exact, run

# eps stands well above rounding: two values that share statistics are +-1 whatever they are, and
# their gradient is then nothing but rounding.
EPS = [1e-2, 0.7]
ROWS = [((6,), 1), ((3, 2), 1), ((4, 7), 1), ((2, 3, 5), 2), ((2, 3, 4, 5), 3), ((16, 64), 1), ((5, 4099), 1)]
CHANNELS = [(5, 3), (2, 3), (4, 3, 6), (2, 3, 2, 4), (2, 2, 3, 1, 2), (3, 17, 9, 7), (70, 33), (2, 1, 5000)]


def assert_the_same(ours: Results, theirs: Results):
    for name, a, b in zip(Results._fields, ours, theirs, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.shape == b.shape
            error = np.max(np.abs(exact(a) - exact(b)))
            assert error <= tolerances.FLOAT64 * np.max(np.abs(exact(b))), name


@pytest.mark.parametrize("affine", AFFINE)
@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize(("shape", "trailing"), ROWS)
def test_row_norms(shape, trailing, name, eps, affine):
    norm = RowNorm(name, trailing, {"eps": eps})
    o = operands(norm, shape, torch.float64, affine=affine)
    assert_the_same(run(norm.ours, o), run(norm.pytorch, o))


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_the_default_eps(name):
    norm = RowNorm(name)
    o = operands(norm, (4, 50), torch.float64)
    o = o._replace(x=o.x * 1e-7 if name == "rms_norm" else o.x * 1e-2)  # so that eps matters
    assert_the_same(run(norm.ours, o), run(norm.pytorch, o))


def plain_rms_norm(x, weight, bias, eps, eps_mode, gain_offset):
    square = x.square().mean(-1, keepdim=True)
    y = x / ((square + eps).sqrt() if eps_mode == "inside" else square.sqrt() + eps)
    y = y if weight is None else y * (gain_offset + weight)
    return y if bias is None else y + bias


@pytest.mark.parametrize("affine", AFFINE)
@pytest.mark.parametrize("eps_mode", ["inside", "outside"])
@pytest.mark.parametrize("gain_offset", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("eps", [*EPS, None])
def test_rms_norm_variants_against_the_plain_formula(eps, gain_offset, eps_mode, affine):
    norm = RowNorm("rms_norm", 1, {"eps": eps, "eps_mode": eps_mode, "gain_offset": gain_offset})
    plain = {**norm.options, "eps": torch.finfo(torch.float64).eps if eps is None else eps}
    for shape in ((4, 7), (40, 33)):
        o = operands(norm, shape, torch.float64, affine=affine)
        assert_the_same(run(norm.ours, o), run(lambda *a: plain_rms_norm(*a, **plain), o))


@pytest.mark.parametrize("affine", AFFINE)
@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", CHANNELS, ids=str)
def test_batch_norm(shape, training, eps, affine):
    r = rng("running", shape)
    running = (
        tensor(r.standard_normal(shape[1]), torch.float64),
        tensor(r.uniform(0.5, 2, shape[1]), torch.float64),
    )
    norm = BatchNorm(None if training else running, {"eps": eps})
    o = operands(norm, shape, torch.float64, affine=affine)
    for laid_out in (o, channels_last(o)):
        assert_the_same(run(norm.ours, laid_out), run(norm.pytorch, laid_out))


@pytest.mark.parametrize("shape", CHANNELS, ids=str)
@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, 0.7])
def test_running_statistics(shape, momentum):
    x = normal(shape, torch.float64) * 3 + 2
    started = torch.full((2, shape[1]), 0.5, dtype=torch.float64)
    ours, theirs = list(started.clone()), list(started.clone())
    for step in range(3):
        nk.functional.batch_norm(x + step, *ours, training=True, momentum=momentum)
        F.batch_norm(x + step, *theirs, training=True, momentum=momentum)
    for a, b in zip(ours, theirs, strict=True):
        assert np.max(np.abs(exact(a) - exact(b))) <= tolerances.FLOAT64 * np.max(np.abs(exact(b)))
