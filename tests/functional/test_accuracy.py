"""Outputs and gradients against the reference, in widths around the vector width and on hard data."""

import numpy as np
import pytest
import torch

from tests import tolerances
from tests.data import DTYPES, KINDS, LONG_WIDTHS, WIDTHS, name_of, normal
from tests.operands import channel_operands, channels_last, row_operands, running_statistics
from tests.oracle import BatchNorm, Operands, RowNorm, assert_right, exact, run, unit

ROW_NORMS = [RowNorm("layer_norm"), RowNorm("rms_norm")]
ALL_WIDTHS = WIDTHS + LONG_WIDTHS
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)


@EVERY_DTYPE
@pytest.mark.parametrize("width", ALL_WIDTHS)
@pytest.mark.parametrize("norm", ROW_NORMS, ids=str)
def test_row_norms(norm, width, dtype):
    for kind in KINDS:
        for affine in (True, False):
            o = row_operands(kind, width, dtype, affine)
            assert_right(norm, o, run(norm.ours, o), f"{kind}, affine={affine}")


@EVERY_DTYPE
@pytest.mark.parametrize("width", ALL_WIDTHS)
@pytest.mark.parametrize("layout", ["planar", "channels-last", "two-dimensional"])
def test_batch_norm_in_training(layout, width, dtype):
    shape = {"planar": (2, 3, width), "channels-last": (2, width, 3), "two-dimensional": (5, width)}[layout]
    norm = BatchNorm()
    for kind in KINDS:
        for affine in (True, False):
            o = channel_operands(kind, shape, dtype, affine)
            o = channels_last(o) if layout == "channels-last" else o
            assert_right(norm, o, run(norm.ours, o), f"{kind}, affine={affine}")


@EVERY_DTYPE
@pytest.mark.parametrize("width", ALL_WIDTHS)
@pytest.mark.parametrize("layout", ["planar", "channels-last", "two-dimensional"])
def test_batch_norm_in_inference(layout, width, dtype):
    shape = {"planar": (2, 3, width), "channels-last": (2, width, 3), "two-dimensional": (5, width)}[layout]
    for kind in KINDS:
        # A whole channel of one value: a bias could cancel all of its output.
        o = channel_operands(kind, shape, dtype, affine=kind != "constant")
        o = channels_last(o) if layout == "channels-last" else o
        norm = BatchNorm(running_statistics(o.x))
        assert_right(norm, o, run(norm.ours, o), kind)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=name_of)
@pytest.mark.parametrize("width", [1, 5, 16, 33, 1000, 4097])
def test_half_types_with_float32_weights(width, half):
    for kind in KINDS:
        for norm in ROW_NORMS:
            o = row_operands(kind, width, half, weight_dtype=torch.float32)
            assert_right(norm, o, run(norm.ours, o), kind)
        norm = BatchNorm()
        for shape in ((4, 3, width), (6, width)):
            o = channel_operands(kind, shape, half, weight_dtype=torch.float32)
            assert_right(norm, o, run(norm.ours, o), kind)


def assert_not_behind_pytorch(norm, o, about):
    right = norm.grouped(norm.expected(o).output)
    one = unit(np.abs(right).max(1, keepdims=True), torch.float32)
    ours, theirs = (
        np.abs(norm.grouped(exact(function(*o[:3]))) - right) / one for function in (norm.ours, norm.pytorch)
    )
    behind = np.max(ours - theirs)
    assert behind <= tolerances.BEHIND_PYTORCH, f"{norm} {about}: {behind:.3g} units further than PyTorch"


@pytest.mark.parametrize("width", ALL_WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_float32_output_is_not_further_from_the_reference_than_pytorchs(kind, width):
    for affine in (True, False):
        for norm in ROW_NORMS:
            o = row_operands(kind, width, torch.float32, affine)
            assert_not_behind_pytorch(norm, o, f"affine={affine}")
        for shape in ((2, 3, width), (5, width)):
            o = channel_operands(kind, shape, torch.float32, affine)
            assert_not_behind_pytorch(BatchNorm(), o, f"{shape}, affine={affine}")
            assert_not_behind_pytorch(BatchNorm(), channels_last(o), f"{shape} channels-last")


# Blocks of 32 rows (row norms) and 64 rows (channels-last) have partial sums of their own; beyond 128
# blocks the blocks grow. Pieces of 4096 positions; planes gathered until they hold 4096.
@EVERY_DTYPE
@pytest.mark.parametrize("rows", [31, 33, 64, 65, 127, 129, 128 * 32, 128 * 32 + 1, 128 * 64 + 7])
def test_many_rows(rows, dtype):
    for norm in ROW_NORMS:
        o = row_operands("normal", 9, dtype, rows=rows)
        assert_right(norm, o, run(norm.ours, o))
    o = channel_operands("offset", (rows, 5), dtype)
    assert_right(BatchNorm(), o, run(BatchNorm().ours, o))
    norm = BatchNorm(running_statistics(o.x, torch.float32))
    assert_right(norm, o, run(norm.ours, o))


@EVERY_DTYPE
@pytest.mark.parametrize(
    "shape",
    [(2, 1, 5000), (1, 2, 4096), (3, 1, 4097), (2, 2, 95, 97), (1500, 2, 3), (5, 300, 1, 1), (64, 3, 64, 1)],
    ids=str,
)
@pytest.mark.parametrize("layout", ["planar", "channels-last"])
@pytest.mark.parametrize("kind", ["normal", "offset", "heavy-tailed"])
def test_planes_and_pieces(kind, layout, shape, dtype):
    o = channel_operands(kind, shape, dtype)
    o = channels_last(o) if layout == "channels-last" else o
    for norm in (BatchNorm(), BatchNorm(running_statistics(o.x))):
        assert_right(norm, o, run(norm.ours, o))


@pytest.mark.parametrize("rows", [257, 400, 768, 1000, 4096])
@pytest.mark.parametrize("at", [0, 1 / 4, 1 / 2, 3 / 4])
@pytest.mark.parametrize("layout", ["planar", "two-dimensional"])
def test_a_spike_among_the_samples_batch_norm_takes(layout, at, rows):
    """Sums are relative to a mean of a few samples: one of them may be all there is in a channel."""
    x = torch.zeros(rows, 5)
    x[int(at * rows)] = normal((5,), torch.float32) + 3
    if layout == "planar":
        x = x.t().reshape(1, 5, rows).contiguous()
    upstream, weight, bias = normal(x.shape), *(normal((5,), seed=seed) for seed in ("weight", "bias"))
    o = Operands(x, weight, bias, upstream)
    assert_right(BatchNorm(), o, run(BatchNorm().ours, o))
