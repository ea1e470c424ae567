"""Every argument in every form: parameters or none, eight kinds of shape, four dtypes in all pairs."""

import itertools

import pytest
import torch

import normkit as nk
from tests.data import DTYPES, name_of, normal
from tests.operands import AFFINE, channels_last, every_norm, operands
from tests.oracle import BatchNorm, RowNorm, assert_right, run

NAMES = ["layer_norm", "rms_norm"]
PAIRS = [pair for pair in itertools.product(DTYPES, DTYPES) if pair[0] != pair[1]]


@pytest.mark.parametrize("affine", AFFINE)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("which", range(5))
def test_with_and_without_parameters(which, dtype, affine):
    norm = every_norm(19, dtype)[which]
    shape = (6, 19, 3) if isinstance(norm, BatchNorm) else (6, 3, 19)
    o = operands(norm, shape, dtype, affine=affine)
    assert_right(norm, o, run(norm.ours, o))


@pytest.mark.parametrize(("dtype", "weight_dtype"), PAIRS, ids=name_of)
@pytest.mark.parametrize("which", range(5))
def test_parameters_of_another_dtype(which, dtype, weight_dtype):
    norm = every_norm(19, torch.float32)[which]
    shape = (40, 19, 3) if isinstance(norm, BatchNorm) else (40, 19)
    o = operands(norm, shape, dtype, weight_dtype)
    results = run(norm.ours, o)
    assert results.grad_weight.dtype == results.grad_bias.dtype == weight_dtype
    assert results.output.dtype == results.grad_input.dtype == dtype
    assert_right(norm, o, results)
    mixed = operands(norm, shape, dtype, weight_dtype, bias_dtype=dtype)
    assert_right(norm, mixed, run(norm.ours, mixed))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("trailing", [1, 2, 3])
@pytest.mark.parametrize("lead", [(), (5,), (1,), (2, 3), (2, 1, 3), (2, 2, 1, 3)], ids=str)
def test_dimensions_of_row_norms(lead, trailing, dtype):
    for name in NAMES:
        norm = RowNorm(name, trailing)
        o = operands(norm, (*lead, *(4, 3, 5)[-trailing:]), dtype)
        assert_right(norm, o, run(norm.ours, o))


@pytest.mark.parametrize("kind", [tuple, list, torch.Size])
def test_kinds_of_normalized_shape(kind):
    x = normal((2, 3, 4))
    for function in (nk.functional.layer_norm, nk.functional.rms_norm):
        torch.testing.assert_close(function(x, kind((3, 4))), function(x, (3, 4)), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("eps", [None, 0.0, 1e-8, 1e-3, 10.0])
@pytest.mark.parametrize("eps_mode", ["inside", "outside"])
@pytest.mark.parametrize("gain_offset", [0.0, 1.0])
def test_rms_norm_variants(gain_offset, eps_mode, eps, dtype):
    norm = RowNorm("rms_norm", 1, {"eps": eps, "eps_mode": eps_mode, "gain_offset": gain_offset})
    for affine in AFFINE:
        o = operands(norm, (9, 21), dtype, affine=affine)
        assert_right(norm, o, run(norm.ours, o))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_eps_outside_at_a_row_of_zeros_has_the_limit(dtype):
    norm = RowNorm("rms_norm", 1, {"eps": 0.5, "eps_mode": "outside", "gain_offset": 1.0})
    o = operands(norm, (3, 20), dtype)
    o.x[1] = 0
    results = run(norm.ours, o)
    assert_right(norm, o, results)
    limit = (1 + o.weight.double()) * o.grad_output[1].double() / 0.5
    torch.testing.assert_close(results.grad_input[1].double(), limit, rtol=2 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "shape", [(7, 3), (7, 3, 5), (4, 3, 5, 6), (2, 3, 4, 3, 2), (1, 3, 5, 6), (4, 1, 5), (2, 1)], ids=str
)
def test_dimensions_of_batch_norm(shape, training, dtype):
    norm = every_norm(shape[1], dtype)[3 if training else 4]
    for affine in AFFINE:
        o = operands(norm, shape, dtype, affine=affine)
        assert_right(norm, o, run(norm.ours, o))
        o = channels_last(o)
        results = run(norm.ours, o)
        assert_right(norm, o, results)
        dense = [size for size in shape if size != 1]
        if len(shape) == 3:
            assert results.output.is_contiguous()
        elif len(dense) > 2 and shape[1] > 1:
            assert results.output.stride() == results.grad_input.stride() == o.x.stride()


@pytest.mark.parametrize("running_dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_running_statistics_of_another_dtype_in_inference(dtype, running_dtype):
    norm = every_norm(5, running_dtype)[4]
    o = operands(norm, (6, 5, 4), dtype)
    assert_right(norm, o, run(norm.ours, o))


@pytest.mark.parametrize("eps", [0.0, 1e-5, 1e-3, 10.0])
def test_eps_of_the_others(eps):
    for norm, shape in (
        (RowNorm("layer_norm", 1, {"eps": eps}), (9, 21)),
        (BatchNorm(None, {"eps": eps}), (9, 3)),
    ):
        for dtype in DTYPES:
            o = operands(norm, shape, dtype)
            assert_right(norm, o, run(norm.ours, o))
