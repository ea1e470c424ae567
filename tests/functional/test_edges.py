"""Empty batches, empty rows, rows of one element, numbers near the ends of the range, nan."""

import pytest
import torch
import torch.nn.functional as F

import normkit as nk
from tests.data import DTYPES, name_of, normal
from tests.operands import channels_last, every_norm, operands
from tests.oracle import BatchNorm, RowNorm, assert_right, run

EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
ROW_NORMS = ["layer_norm", "rms_norm"]


@EVERY_DTYPE
@pytest.mark.parametrize("shape", [(0, 5), (0,), (3, 0), (0, 0), (2, 0, 5), (2, 3, 0)], ids=str)
@pytest.mark.parametrize("name", ROW_NORMS)
def test_row_norms_of_nothing(name, shape, dtype):
    norm = RowNorm(name)
    x, weight, bias = (
        torch.ones(s, dtype=dtype, requires_grad=True) for s in (shape, shape[-1:], shape[-1:])
    )
    y = norm.ours(x, weight, bias)
    assert y.shape == shape
    assert y.dtype == dtype
    gradients = torch.autograd.grad(y, (x, weight, bias), torch.ones_like(y))
    for gradient, of in zip(gradients, (x, weight, bias), strict=True):
        assert gradient.shape == of.shape
        assert gradient.dtype == dtype
        assert (gradient == 0).all()


@EVERY_DTYPE
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(0, 5), (0, 5, 3), (2, 5, 0), (0, 5, 2, 2), (2, 0, 3), (0, 0)], ids=str)
def test_batch_norm_of_nothing(shape, training, dtype):
    channels = shape[1]
    running = torch.full((channels,), 0.5), torch.full((channels,), 2.0)
    x = torch.ones(shape, dtype=dtype, requires_grad=True)
    weight, bias = (torch.ones(channels, dtype=dtype, requires_grad=True) for _ in range(2))
    y = nk.functional.batch_norm(x, *running, weight, bias, training)
    assert y.shape == shape
    assert y.dtype == dtype
    gradients = torch.autograd.grad(y, (x, weight, bias), torch.ones_like(y))
    for gradient, of in zip(gradients, (x, weight, bias), strict=True):
        assert gradient.shape == of.shape
        assert (gradient == 0).all()
    assert (running[0] == 0.5).all()
    assert (running[1] == 2.0).all()


def test_an_empty_batch_counts_as_pytorch_counts_it():
    ours, theirs = nk.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    for layer in (ours, theirs):
        layer(torch.ones(0, 3))
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


@EVERY_DTYPE
def test_rows_of_one_element(dtype):
    for name in ROW_NORMS:
        norm = RowNorm(name)
        for shape in ((1,), (7, 1), (70, 1), (2, 3, 1)):
            o = operands(norm, shape, dtype)
            results = run(norm.ours, o)
            assert_right(norm, o, results)
            if name == "layer_norm":
                assert torch.equal(results.output, o.bias.expand(shape))


@EVERY_DTYPE
def test_one_value_per_channel_in_inference(dtype):
    norm = every_norm(5, dtype)[4]
    for shape in ((1, 5), (1, 5, 1), (1, 5, 1, 1, 1)):
        o = operands(norm, shape, dtype)
        assert_right(norm, o, run(norm.ours, o))


# What float32 computes in float32 overflows, or vanishes, long before its values do.
@pytest.mark.parametrize("magnitude", [1e-35, 1e-30, 1e-22, 1e18, 1e20, 1e30, 1e38])
@pytest.mark.parametrize("eps", [0.0, None])
@pytest.mark.parametrize("width", [5, 40])
def test_float32_row_norms_at_the_ends_of_the_range(width, eps, magnitude):
    x = (normal((6, width)).clamp(-3, 3) * magnitude).requires_grad_()
    grad = normal(x.shape, seed="grad")
    for name in ROW_NORMS:
        options = {} if eps is None else {"eps": eps}
        norm = RowNorm(name, 1, options)
        o = operands(norm, x.shape, torch.float32, affine=(False, False))._replace(
            x=x.detach(), grad_output=grad
        )
        output = norm.ours(o.x)
        expected = torch.from_numpy(norm.expected(o).output)
        assert output.isfinite().all(), name
        torch.testing.assert_close(
            output.double(), expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max())
        )


@pytest.mark.parametrize("magnitude", [1e-30, 1e-22, 1e18, 1e20, 1e30])
@pytest.mark.parametrize("shape", [(6, 3, 5), (40, 3)], ids=str)
def test_float32_batch_norm_at_the_ends_of_the_range(shape, magnitude):
    norm = BatchNorm(options={"eps": 0.0})
    o = operands(norm, shape, torch.float32, affine=(False, False))
    o = o._replace(x=normal(shape).clamp(-3, 3) * magnitude)
    for x in (o.x, channels_last(o).x):
        output = norm.ours(x)
        expected = torch.from_numpy(norm.expected(o).output)
        torch.testing.assert_close(
            output.double(), expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max())
        )


def test_largest_float16_values():
    x = normal((4, 33)).clamp(-3, 3).mul(20000).half()
    for norm in (RowNorm("layer_norm"), RowNorm("rms_norm"), BatchNorm()):
        o = operands(norm, x.shape, torch.float16)._replace(x=x)
        assert_right(norm, o, run(norm.ours, o))


@EVERY_DTYPE
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_in_its_row(bad, dtype):
    x = normal((40, 19), dtype)
    for name in ROW_NORMS:
        norm = RowNorm(name)
        clean = norm.ours(x)
        dirty = x.clone()
        dirty[7, 3] = bad
        y = norm.ours(dirty)
        theirs = norm.pytorch(dirty)
        assert torch.equal(y[7].isnan(), theirs[7].isnan())
        keep = torch.arange(40) != 7
        assert torch.equal(y[keep], clean[keep])


@EVERY_DTYPE
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_channel(bad, dtype):
    for shape in ((6, 5, 7), (40, 5)):
        x = normal(shape, dtype)
        clean = nk.functional.batch_norm(x, None, None, training=True)
        x[2, 3] = bad
        y = nk.functional.batch_norm(x, None, None, training=True)
        theirs = F.batch_norm(x, None, None, training=True)
        assert torch.equal(y[:, 3].isnan(), theirs[:, 3].isnan())
        keep = torch.arange(5) != 3
        assert torch.equal(y[:, keep], clean[:, keep])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=name_of)
def test_infinity_keeps_its_sign_in_inference(dtype):
    x = torch.tensor([[1.0, 2.0, 3.0], [torch.inf, -torch.inf, torch.inf]], dtype=dtype)
    mean, var = torch.tensor([0.0, 0.5, 0.1], dtype=dtype), torch.tensor([1.0, 2.0, 3.0], dtype=dtype)
    assert torch.equal(nk.functional.batch_norm(x, mean, var)[1], x[1])


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("scale", [1e38, 1e20, 1e-20, 1e-40])
def test_batch_norm_of_channels_at_the_ends_of_float32(scale, memory):
    x = (torch.rand(300, 4, 2, 2) * 6 - 3).to(memory_format=memory) * scale
    y = nk.functional.batch_norm(x, None, None, training=True, eps=0.0)
    exact = nk.reference.batch_norm(x.double().numpy(), None, None, training=True, eps=0.0).output
    # A number of 1e-40 has 17 bits.
    torch.testing.assert_close(
        y.double(), torch.from_numpy(exact), rtol=0, atol=1e-6 if scale > 1e-30 else 2e-5
    )


def test_a_small_eps_outside_the_root_is_seen():
    x = torch.randn(2, 300) * 1e-23
    y = nk.functional.rms_norm(x, (300,), eps=1e-22, eps_mode="outside")
    exact = x.double() / (x.double().square().mean(1, keepdim=True).sqrt() + 1e-22)
    torch.testing.assert_close(y.double(), exact, rtol=1e-6, atol=0)


def test_one_large_square_among_small_ones_in_every_pass_of_channels_last_data():
    """Each addition after the large one loses almost half a unit, always in one direction."""
    rows, b = torch.arange(1024), (0.49 * 2.0**-23) ** 0.5
    x = torch.where((rows // 32) % 2 == 0, b, -b)[:, None].repeat(1, 64)
    x[[16, 48, 80, 112]] = 1 + torch.rand(64) * 1e-3
    y = nk.functional.batch_norm(x, None, None, training=True)
    exact = nk.reference.batch_norm(x.double().numpy(), None, None, training=True).output
    # Four units of the largest value, which is between 8 and 16.
    torch.testing.assert_close(y.double(), torch.from_numpy(exact), rtol=0, atol=4 * 8 * 2.0**-23)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=name_of)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_with_given_statistics_does_not_depend_on_the_input(memory, dtype):
    x = torch.randn(3, 4, 5, 7, dtype=dtype).to(memory_format=memory)
    x[0, 0, 0, 0], x[1, 1, 1, 1], x[2, 2, 2, 2], x[0, 3, 4, 6] = 3e38, torch.nan, torch.inf, -torch.inf
    mean, var, weight = torch.randn(4), torch.rand(4) * 1e-2 + 1e-3, torch.randn(4)
    upstream = torch.randn_like(x)
    y = nk.functional.batch_norm(x.requires_grad_(), mean, var, weight)
    (grad,) = torch.autograd.grad(y, x, upstream)
    exact = upstream.double() * (weight.double() / (var.double() + 1e-5).sqrt()).view(4, 1, 1)
    eps = torch.finfo(dtype).eps if dtype != torch.float64 else torch.finfo(torch.float32).eps
    torch.testing.assert_close(grad.double(), exact, rtol=2 * eps, atol=0)


def test_an_eps_that_dwarfs_the_data():
    x = torch.tensor([[1e10, -1e10]])
    outside = nk.functional.rms_norm(x, (2,), eps=1e45, eps_mode="outside")
    torch.testing.assert_close(outside.double(), x.double() * 1e-45, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        nk.functional.layer_norm(x, (2,), eps=1e80).double(), x.double() * 1e-40, rtol=1e-6, atol=0
    )


def test_small_upstream_gradients_of_a_row_that_takes_care():
    x = torch.tensor([[1e8 + 1, 1e8 + 2, 1e8 + 3, 1e8 + 5]], dtype=torch.float64)
    weight = torch.ones(4, dtype=torch.float64, requires_grad=True)
    upstream = torch.tensor([[1e-318, 2e-318, -1e-318, 3e-318]], dtype=torch.float64)
    nk.functional.layer_norm(x, (4,), weight, eps=0.0).backward(upstream)
    c = x[0] - x[0].mean()
    expected = upstream[0] * (c / c.square().mean().sqrt())
    torch.testing.assert_close(weight.grad, expected, rtol=0, atol=1e-323)


def test_zeros_have_a_gradient_of_gradients_with_eps_outside_the_root():
    x = torch.zeros(2, 4, requires_grad=True)
    y = nk.functional.rms_norm(x, (4,), eps=1e-3, eps_mode="outside")
    for graph in (False, True):
        (grad,) = torch.autograd.grad(y.sum(), x, create_graph=graph, retain_graph=True)
        torch.testing.assert_close(grad, torch.full((2, 4), 1e3))
