"""The samples PyTorch tests its own norms with (the OpInfo entries that it ships), through ours.

Right is what PyTorch computes of the same numbers in float64; how near is `tests.tolerances`' to say.
"""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import normkit as nk
from tests import tolerances
from tests.data import DTYPES, name_of, normal
from tests.oracle import BatchNorm, Operands, Results, RowNorm, assert_right, exact, run, unit

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ImportWarning)  # it asks for hypothesis, to seed it
    from torch.testing._internal.common_methods_invocations import op_db
# It forbids the whole process to set a backend's flag; `normkit.study` sets one.
torch.backends.disable_global_flags.__globals__["__allow_nonbracketed_mutation_flag"] = True

SAMPLES = {
    name: next(o for o in op_db if o.name == f"nn.functional.{name}" and not o.variant_test_name)
    for name in ("layer_norm", "rms_norm", "batch_norm")
}
# PyTorch's entry for layer_norm has no mistakes of its own; the one of the operator beneath has.
MISTAKES = {
    "layer_norm": next(o for o in op_db if o.name == "native_layer_norm"),
    "rms_norm": SAMPLES["rms_norm"],
}
EVERY = pytest.mark.parametrize("name", SAMPLES)
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)


def samples(name, dtype):
    """The samples within our contract, and those without: a negative eps, a batch without channels."""
    found = list(SAMPLES[name].sample_inputs("cpu", dtype, requires_grad=False))
    outside = [s for s in found if s.kwargs.get("eps", 0) < 0 or (name == "batch_norm" and s.input.dim() < 2)]
    return [s for s in found if s not in outside], outside


class Row(RowNorm):
    def expected(self, o, precision=np.float64):  # PyTorch's, whose most is float64
        in_words = RowNorm(self.name, self.trailing, {"eps": self._eps(o.x)})  # None depends on the dtype
        return in_float64(in_words.pytorch, o)


class Batch(BatchNorm):
    def expected(self, o, precision=np.float64):
        running = self.running and tuple(t.double() for t in self.running)
        return in_float64(BatchNorm(running, self.options).pytorch, o)


def in_float64(function, o):
    wide = run(function, Operands(*(None if t is None else t.double() for t in o)))
    return Results(*(exact(t) for t in wide))


def read(name, sample):
    """The sample's norm and its operands, with a random upstream gradient."""
    x, grad = sample.input, normal(sample.input.shape, sample.input.dtype, "grad")
    if name != "batch_norm":
        shape, *parameters = sample.args
        operands = Operands(x, *parameters, *[None] * (2 - len(parameters)), grad)
        return Row(name, len(shape), sample.kwargs), operands
    mean, var, weight, bias = sample.args
    options = {key: v for key, v in sample.kwargs.items() if key == "eps"}
    running = None if sample.kwargs.get("training") else (mean, var)
    return Batch(running, options), Operands(x, weight, bias, grad)


def ours(name, sample):
    """PyTorch's arguments, as they are."""
    return getattr(nk.functional, name)(sample.input, *sample.args, **sample.kwargs)


@EVERY
@EVERY_DTYPE
def test_samples(dtype, name):
    inside, _ = samples(name, dtype)
    assert len(inside) >= 5
    for sample in inside:
        norm, o = read(name, sample)
        results = run(norm.ours, o)
        if o.x.numel():
            assert_right(norm, o, results, f"{tuple(o.x.shape)} {sample.kwargs}")
        else:  # no scale to be near by: an empty output, and no gradient
            for found, right in zip(results, norm.expected(o), strict=True):
                assert (found is right is None) or np.array_equal(exact(found), right)
        assert torch.equal(ours(name, sample), results.output)


@EVERY
def test_second_derivatives(name):
    for sample in samples(name, torch.float64)[0]:
        norm, o = read(name, sample)
        given = [t.detach().requires_grad_() for t in o[:3] if t is not None]

        def function(*tensors, norm=norm, o=o):
            found = iter(tensors)
            return norm.ours(*(None if t is None else next(found) for t in o[:3]))

        assert torch.autograd.gradcheck(function, given)
        assert torch.autograd.gradgradcheck(function, given)


@EVERY_DTYPE
def test_running_statistics(dtype):
    moved = [s for s in samples("batch_norm", dtype)[0] if s.kwargs.get("training") and s.args[0] is not None]
    assert len(moved) > 3
    for sample in moved:
        mean, var, *affine = sample.args
        before = [exact(t.clone()) for t in (mean, var)]
        right = [t.double().clone() for t in (mean, var)]
        F.batch_norm(sample.input.double(), *right, *(t.double() for t in affine), **sample.kwargs)
        ours("batch_norm", sample)
        for found, expected, old in zip(map(exact, (mean, var)), map(exact, right), before, strict=True):
            size = np.abs([expected, old]).max()
            assert np.abs(found - expected).max() <= tolerances.RUNNING * unit(size, dtype)


@EVERY
@EVERY_DTYPE
def test_samples_that_we_refuse(dtype, name):
    _, outside = samples(name, dtype)
    assert len(outside) == {"layer_norm": 1, "rms_norm": 1, "batch_norm": 2}[name]
    for sample in outside:
        with pytest.raises(ValueError, match=r"(eps|input) must be"):
            ours(name, sample)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    mistakes = list(MISTAKES[name].error_inputs("cpu"))
    assert len(mistakes) >= 3
    for mistake in mistakes:
        with pytest.raises((ValueError, TypeError), match=r"(normalized_shape|weight|bias) must"):
            ours(name, mistake.sample_input)
