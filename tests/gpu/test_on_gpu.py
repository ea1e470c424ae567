"""What only a GPU shows: results, bits, graphs, streams, devices, the compiler, and the bench there."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import normkit as nk
from normkit.bench.cases import Case
from tests.process import sweep

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.filterwarnings("default"),  # the compiler's own
]
# Rows held, several to a program and one; rows in slabs.
WIDTHS = [64, 1000, 4096, 16384, 16400, 70001]
DTYPES = [torch.float32, torch.bfloat16]


def layer_norm(x, weight, bias):
    return nk.functional.layer_norm(x, weight.shape, weight, bias)


def rms_norm(x, weight, bias):
    return nk.functional.rms_norm(x, weight.shape, weight, bias=bias)


def batch_norm(x, weight, bias):
    return nk.functional.batch_norm(x, None, None, weight, bias, training=True)


def made(rows, n, dtype, device="cuda"):
    """x, weight, bias and an upstream gradient."""
    x, g = (torch.randn(rows, n, device=device).to(dtype) for _ in range(2))
    weight, bias = (torch.randn(n, device=device).to(dtype) for _ in range(2))
    return x, weight, bias, g


def both_ways(norm, x, weight, bias, g):
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]
    y = norm(*leaves)
    return (y.detach(), *torch.autograd.grad(y, leaves, g))


def assert_same_bits(a, b):
    for ours, theirs in zip(a, b, strict=True):
        assert torch.equal(ours, theirs)


# In shares: most of the time goes into compiling some 400 kernels for each dtype, side by side.
@pytest.mark.parametrize("share", ["0/4", "1/4", "2/4", "3/4"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_results(dtype, share):
    report = sweep("--cuda", "--dtype", dtype, "--share", share)
    assert report["kernel"] == "normkit Triton kernels"
    assert report["failures"] == []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [layer_norm, rms_norm, batch_norm])
@pytest.mark.parametrize("n", WIDTHS)
def test_the_same_bits_again(norm, n, dtype):
    made_once = made(70, n, dtype)
    first = both_ways(norm, *made_once)
    for _ in range(3):
        assert_same_bits(first, both_ways(norm, *made_once))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
@pytest.mark.parametrize("n", WIDTHS)
def test_a_row_has_the_same_bits_in_any_batch(norm, n, dtype):
    x, weight, bias, g = made(130, n, dtype)
    y, grad_x, _, _ = both_ways(norm, x, weight, bias, g)
    for first, last in ((0, 1), (16, 64), (129, 130)):
        part, grad, _, _ = both_ways(norm, x[first:last].clone(), weight, bias, g[first:last].clone())
        assert_same_bits((y[first:last], grad_x[first:last]), (part, grad))


@pytest.mark.parametrize("n", [4096, 70001])
@pytest.mark.parametrize("norm", [layer_norm, rms_norm, batch_norm])
def test_a_captured_graph_computes_again_what_is_put_into_its_tensors(norm, n):
    static = made(32, n, torch.float32)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        both_ways(norm, *static)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            captured = both_ways(norm, *static)
    for _ in range(2):
        fresh = made(32, n, torch.float32)
        for into, t in zip(static, fresh, strict=True):
            into.copy_(t)
        torch.cuda.synchronize()
        graph.replay()
        torch.cuda.synchronize()
        assert_same_bits(captured, both_ways(norm, *fresh))


@pytest.mark.parametrize("n", [4096, 70001])
def test_kernels_run_on_the_current_stream(n):
    x, weight, bias, _ = made(32, n, torch.float32)
    wanted = layer_norm(2 * x, weight, bias)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # on another stream the norm would not wait for what follows
        x.mul_(2)
        y = layer_norm(x, weight, bias)
    stream.synchronize()
    assert torch.equal(y, wanted)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
def test_kernels_run_on_the_tensors_device():
    at_first = made(32, 1000, torch.float32, "cuda:0")
    wanted = both_ways(layer_norm, *at_first)
    assert torch.cuda.current_device() == 0
    for found, right in zip(both_ways(layer_norm, *(t.to("cuda:1") for t in at_first)), wanted, strict=True):
        assert found.device.index == 1
        assert torch.equal(found.cpu(), right.cpu())
    assert torch.cuda.current_device() == 0


@pytest.mark.parametrize("norm", [layer_norm, rms_norm, batch_norm])
def test_compiled_as_one_graph(norm):
    x, weight, bias, g = made(64, 1000, torch.float32)
    eager = both_ways(norm, x, weight, bias, g)
    compiled = both_ways(torch.compile(norm, fullgraph=True), x, weight, bias, g)
    for ours, theirs in zip(compiled, eager, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_layer_trains_compiled_and_tracks():
    layer, eager = (nk.BatchNorm2d(16, device="cuda") for _ in range(2))
    compiled = torch.compile(layer, fullgraph=True)
    for _ in range(3):
        x = torch.randn(8, 16, 12, 12, device="cuda")
        torch.testing.assert_close(compiled(x), eager(x))
    assert layer.num_batches_tracked == 3
    torch.testing.assert_close(layer.running_var, eager.running_var)


def test_rows_that_lie_apart_are_read_where_they_lie():
    whole = torch.randn(64, 8192, device="cuda")
    weight, bias = torch.randn(2, 4096, device="cuda")
    part = whole[:, :4096]
    layer_norm(part, weight, bias)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    y = layer_norm(part, weight, bias)
    assert torch.cuda.max_memory_allocated() - before == y.nbytes
    assert torch.equal(y, layer_norm(part.contiguous(), weight, bias))


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
def test_wide_rows_at_an_odd_place_have_the_bits_of_others(norm):
    x, weight, bias, g = made(32, 16400, torch.bfloat16)
    odd_x, odd_g = (torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape) for t in (x, g))
    assert odd_x.data_ptr() % 4 == 2
    wanted = both_ways(norm, x, weight, bias, g)
    assert_same_bits(wanted, both_ways(norm, odd_x, weight, bias, odd_g))
    apart = torch.cat([x, x[:, :1]], 1)[:, :16400]
    assert apart.stride(0) % 16 == 1
    assert_same_bits(wanted, both_ways(norm, apart, weight, bias, g))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
def test_programs_that_share_rows_take_many_of_them(norm, dtype):
    """As many as take all groups of programs a hundred steps."""
    x, weight, bias, g = made(5000, 65536, dtype)
    y, grad_x, _, _ = both_ways(norm, x, weight, bias, g)
    for first in (0, 1003, 2501, 4968):
        rows = slice(first, first + 32)
        part, grad, _, _ = both_ways(norm, x[rows].clone(), weight, bias, g[rows].clone())
        assert_same_bits((y[rows], grad_x[rows]), (part, grad))


def test_what_is_on_another_device_is_refused():
    x, weight, bias, _ = made(4, 64, torch.float32)
    for _ in range(2):  # before and after the kernel is known
        with pytest.raises(ValueError, match="weight"):
            layer_norm(x, weight.cpu(), bias)
        layer_norm(x, weight, bias)


class Dispatched(TorchDispatchMode):
    """Lists the operators that the dispatcher is asked for."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.asked.append(str(function))
        return function(*args, **(kwargs or {}))


def batch_norm_in_inference(x, weight, bias):
    return nk.functional.batch_norm(x, bias, weight.abs(), weight, bias)


@pytest.mark.parametrize("norm", [layer_norm, rms_norm, batch_norm_in_inference])
@pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.inference_mode])
def test_a_call_past_the_dispatcher_gives_the_same_bits(norm, grad_mode):
    x, weight, bias, _ = made(32, 1000, torch.bfloat16)
    with grad_mode():
        norm(x, weight, bias)
        for lies in (x, x[::2], x.t().contiguous().t(), torch._neg_view(x)):
            y = norm(lies, weight, bias)
            with Dispatched() as mode:
                wanted = norm(lies, weight, bias)
            assert any("normkit" in name for name in mode.asked)
            assert (y.stride(), y.dtype, y.is_neg()) == (wanted.stride(), wanted.dtype, False)
            assert torch.equal(y, wanted)


def test_a_profile_has_the_operator():
    x, weight, bias, _ = made(32, 1000, torch.bfloat16)
    for _ in range(2):
        with torch.no_grad(), torch.profiler.profile() as profile:
            layer_norm(x, weight, bias)
        assert "normkit::layer_norm" in {event.name for event in profile.events()}


@pytest.mark.parametrize(
    "case",
    [
        Case("rms_norm", (512, 1024), "forward", "bfloat16"),
        Case("layer_norm", (512, 1024), "forward+backward"),
        Case("layer_norm", (64, 70001), "backward"),
        Case("batch_norm_training", (32, 64, 28, 28), "forward+backward", channels_last=True),
        Case("batch_norm_inference", (32, 64, 28, 28), "forward"),
    ],
    ids=str,
)
def test_the_bench(case):
    from normkit.bench.gpu.measure import measure
    from normkit.bench.machine import this_machine

    row = measure(case, ("pytorch", "inductor"), 3, this_machine("cuda"))
    for name in ("normkit", "pytorch", "inductor"):
        assert row.contenders[name].error <= 1, name
        assert row.contenders[name].warm.median > 0
        assert row.kernels[name]
    assert row.floor_seconds > 0
