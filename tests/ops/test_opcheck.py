"""Every operator passes PyTorch's own checks: schema, fake kernel, autograd, compiled with either."""

import itertools

import pytest
import torch

import normkit  # noqa: F401  defines the operators
from tests.data import DTYPES, name_of, normal
from tests.operands import AFFINE

OPERATORS = torch.ops.normkit
CHECKED = {
    "layer_norm",
    "rms_norm",
    "row_norm",
    "row_norm_fwd",
    "row_norm_bwd",
    "row_norm_bwd_formula",
    "row_norm_with_grad",
    "batch_norm",
    "batch_norm_train",
    "batch_norm_train_fwd",
    "batch_norm_fixed",
    "batch_norm_fixed_fwd",
    "batch_norm_bwd",
    "batch_norm_bwd_formula",
    "batch_norm_step",
    "batch_norm_step_with_grad",
    "batch_norm_fixed_with_grad",
    "batch_norm_update",
}
MEMORY = {
    "contiguous": lambda t: t,
    "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "strided": lambda t: torch.repeat_interleave(t, 2, -1)[..., ::2],
    "channels-last": lambda t: t.movedim(1, -1).contiguous().movedim(-1, 1),
    "channels-last, padded": lambda t: (
        torch.cat([t, t], 1).movedim(1, -1).contiguous().movedim(-1, 1)[:, ::2]
    ),
    "expanded": lambda t: t[:1].expand(t.shape),
}
BOTH = list(itertools.product((True, False), repeat=2))
WANTED = [(True, True, True), (False, True, False), (True, False, True), (True, False, False)]
EVERY_MEMORY = pytest.mark.parametrize("memory", MEMORY)
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
TESTS = ("test_schema", "test_autograd_registration", "test_faketensor")


def check(operator, *arguments, everything=False):
    tests = (*TESTS, "test_aot_dispatch_dynamic") if everything else TESTS
    for name, result in torch.library.opcheck(operator.default, arguments, test_utils=tests).items():
        assert result == "SUCCESS", f"{name}: {result}"


def laid_out(memory, shape, dtype=torch.float32, seed=0, requires_grad=False):
    return MEMORY[memory](normal(shape, dtype, seed)).detach().requires_grad_(requires_grad)


def parameters(n, affine, dtype=torch.float32, requires_grad=False):
    made = (normal((n,), dtype, seed).requires_grad_(requires_grad) for seed in ("weight", "bias"))
    return [p if wanted else None for p, wanted in zip(made, affine, strict=True)]


def wanting(t):
    """The tensor, if there is one, as a leaf that wants a gradient."""
    return None if t is None else t.detach().requires_grad_()


def test_every_operator_is_checked_here():
    names = torch._C._dispatch_get_all_op_names()
    own = {n.removeprefix("normkit::") for n in names if n.startswith("normkit::")}
    assert {n for n in own if not n.startswith("floor_")} == CHECKED  # the bench's copies are no norms


@EVERY_DTYPE
@EVERY_MEMORY
def test_row_norms_in_inference(memory, dtype):
    x = laid_out(memory, (4, 3, 6), dtype)
    for affine in ((True, True), (False, False)):
        check(OPERATORS.layer_norm, x, *parameters(6, affine, dtype), 1e-5)
        check(OPERATORS.rms_norm, x, *parameters(6, affine), 1e-5, 1, True, 1.0)
    weight = normal((3, 6), dtype)
    slow = dtype == torch.float32
    check(OPERATORS.layer_norm, x, weight, None, 1e-5, 2, everything=slow)
    check(OPERATORS.rms_norm, x, weight, None, 1e-5, 2, everything=slow)


@EVERY_MEMORY
@pytest.mark.parametrize(("centred", "outside"), BOTH)
def test_row_norm_fwd(centred, outside, memory):
    rest = (1e-5, centred, 1, outside, 0.5)
    for affine in AFFINE:
        x = laid_out(memory, (4, 3, 6), requires_grad=True)
        check(OPERATORS.row_norm, x, *parameters(6, affine, requires_grad=True), *rest)
        check(OPERATORS.row_norm_with_grad, x, *parameters(6, affine, requires_grad=True), *rest)
        check(OPERATORS.row_norm_fwd, x.detach(), *parameters(6, affine), *rest)
    x = laid_out(memory, (4, 3, 6), torch.bfloat16, requires_grad=True)
    check(OPERATORS.row_norm, x, *parameters(6, (True, True), requires_grad=True), *rest, everything=True)


@EVERY_MEMORY
@pytest.mark.parametrize(("centred", "outside"), BOTH)
def test_row_norm_bwd(centred, outside, memory):
    x, grad = laid_out(memory, (4, 3, 6)), laid_out(memory, (4, 3, 6), seed="grad")
    for affine, wanted in zip(AFFINE, WANTED, strict=True):
        weight, bias = parameters(6, affine)
        _, statistics = OPERATORS.row_norm_fwd(x, weight, bias, 1e-5, centred, 1, outside, 0.5)
        rest = (1e-5, centred, 1, outside, 0.5, *wanted)
        check(OPERATORS.row_norm_bwd, grad, x, statistics, weight, bias, *rest)
        check(OPERATORS.row_norm_bwd_formula, grad, *(wanting(t) for t in (x, weight, bias)), *rest[:5])


@pytest.mark.parametrize("shape", [(0, 6), (4, 0), (6,)], ids=str)
def test_row_norms_of_odd_shapes(shape):
    x = normal(shape).requires_grad_()
    weight, bias = parameters(shape[-1], (True, True), requires_grad=True)
    check(OPERATORS.layer_norm, x.detach(), weight.detach(), bias.detach(), 1e-5)
    check(OPERATORS.row_norm, x, weight, bias, 1e-5, True, everything=True)


@EVERY_DTYPE
@EVERY_MEMORY
@pytest.mark.parametrize("shape", [(4, 3, 6), (4, 3, 2, 5)], ids=str)
def test_batch_norm(shape, memory, dtype):
    x = laid_out(memory, shape, dtype, requires_grad=True)
    mean, var = torch.zeros(3), torch.ones(3)
    check(OPERATORS.batch_norm, x.detach(), mean, var, *parameters(3, (False, True)), 1e-5)
    check(OPERATORS.batch_norm_fixed, x, mean, var, *parameters(3, (False, True), requires_grad=True), 1e-5)
    check(OPERATORS.batch_norm_train, x, *parameters(3, (True, False), dtype, requires_grad=True), 1e-5)
    check(OPERATORS.batch_norm_fixed_fwd, x.detach(), mean, var, *parameters(3, (False, True)), 1e-5)
    check(OPERATORS.batch_norm_train_fwd, x.detach(), *parameters(3, (True, False), dtype), 1e-5)
    weight, bias = parameters(3, (True, True), requires_grad=True)
    slow = dtype == torch.float32
    check(OPERATORS.batch_norm_fixed, x, mean, var, weight, bias, 1e-5, everything=slow)
    check(OPERATORS.batch_norm_train, x, weight, bias, 1e-5, everything=slow)
    check(OPERATORS.batch_norm_fixed_with_grad, x, mean, var, weight, bias, 1e-5)


@pytest.mark.parametrize(
    "shape", [(0, 3), (0, 3, 2), (4, 3, 0), (4, 3), (4, 3, 1, 1), (1, 3, 4), (4, 1, 5)], ids=str
)
@pytest.mark.parametrize("memory", ["contiguous", "channels-last"])
def test_batch_norm_of_odd_shapes(memory, shape):
    x = laid_out(memory, shape)
    check(OPERATORS.batch_norm, x, torch.zeros(shape[1]), torch.ones(shape[1]), None, None, 1e-5)
    check(OPERATORS.batch_norm_train, x, None, None, 1e-5)


@EVERY_MEMORY
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name_of)
def test_batch_norm_bwd(dtype, training, memory):
    x, grad = laid_out(memory, (4, 3, 6), dtype), laid_out(memory, (4, 3, 6), dtype, seed="grad")
    for affine, wanted in zip(AFFINE, WANTED, strict=True):
        weight, bias = parameters(3, affine)
        _, statistics = OPERATORS.batch_norm_train(x, weight, bias, 1e-5)
        check(OPERATORS.batch_norm_bwd, grad, x, statistics, weight, bias, 1e-5, training, *wanted)
        fixed = (None, None) if training else (torch.zeros(3), torch.ones(3))
        differentiable = wanting(x), *fixed, wanting(weight), wanting(bias)
        check(OPERATORS.batch_norm_bwd_formula, grad, *differentiable, 1e-5)


@EVERY_DTYPE
@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_update(momentum, dtype):
    _, statistics = OPERATORS.batch_norm_train(normal((4, 3, 6)), None, None, 1e-5)
    mean, var = torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype)
    batches = torch.tensor(2)
    check(OPERATORS.batch_norm_update, mean, var, batches, statistics, 24, momentum, everything=True)
    if momentum is not None:
        check(OPERATORS.batch_norm_update, mean, None, None, statistics, 24, momentum)
        check(OPERATORS.batch_norm_update, None, None, None, statistics, 24, momentum)


@EVERY_DTYPE
@EVERY_MEMORY
def test_batch_norm_step(memory, dtype):
    x = laid_out(memory, (4, 3, 6), dtype)
    running = torch.zeros(3), torch.ones(3), torch.tensor(2)
    affine = parameters(3, (True, True), dtype)
    check(OPERATORS.batch_norm_step, x, *affine, 1e-5, *running, 0.1, everything=True)
    check(OPERATORS.batch_norm_step, x, *affine, 1e-5, *running, None)
    check(OPERATORS.batch_norm_step, x, None, None, 1e-5, None, None, None, 0.1)
    affine = parameters(3, (True, True), dtype, requires_grad=True)
    check(OPERATORS.batch_norm_step_with_grad, x, *affine, 1e-5, *running, 0.1)


def refuses(operator, *arguments):
    with pytest.raises(RuntimeError, match="normkit"):
        operator(*arguments)


def test_operators_called_wrongly_refuse():
    x, w = torch.randn(4, 3, 6), torch.ones(6)
    _, statistics = OPERATORS.row_norm_fwd(x, w, w, 1e-5, True)
    rest = (1e-5, True, 1, False, 0.0, True, True, True)
    for trailing in (0, -1, 4, 100):
        refuses(OPERATORS.layer_norm, x, None, None, 1e-5, trailing)
        refuses(OPERATORS.row_norm_bwd, x, x, statistics, None, None, 1e-5, True, trailing, *rest[3:])
    refuses(OPERATORS.row_norm_bwd, x[:2], x, statistics, w, w, *rest)
    refuses(OPERATORS.row_norm_bwd, x.double(), x, statistics, w, w, *rest)
    refuses(OPERATORS.row_norm_bwd, x, x, statistics[:, :2], w, w, *rest)
    refuses(OPERATORS.row_norm_bwd, x, x, statistics.double(), w, w, *rest)
    refuses(OPERATORS.row_norm_bwd, x, x, statistics, w[:3], w, *rest)
    _, statistics = OPERATORS.batch_norm_train(x, None, None, 1e-5)
    refuses(OPERATORS.batch_norm_bwd, x[:2], x, statistics, None, None, 1e-5, True, True, True, True)
    refuses(OPERATORS.batch_norm_bwd, x, x, statistics[:3], None, None, 1e-5, True, True, True, True)
    refuses(OPERATORS.batch_norm_bwd, x, x, statistics.half(), None, None, 1e-5, True, True, True, True)
    refuses(OPERATORS.batch_norm_bwd, x, x, statistics, w, None, 1e-5, True, True, True, True)
    refuses(OPERATORS.batch_norm, x, torch.zeros(2), torch.ones(3), None, None, 1e-5)
    refuses(OPERATORS.batch_norm, x[0, 0], torch.zeros(6), torch.ones(6), None, None, 1e-5)
    refuses(OPERATORS.batch_norm_update, torch.zeros(2), None, None, statistics, 24, 0.1)
    refuses(OPERATORS.batch_norm_update, torch.zeros(3), None, None, statistics, 24, None)
    refuses(OPERATORS.batch_norm_update, torch.zeros(3), None, None, statistics[0], 24, 0.1)
    refuses(OPERATORS.batch_norm_update, torch.zeros(3), None, None, statistics[:2], 24, 0.1)


def test_strided_statistics_are_read_right():
    """A caller may hand statistics it has summed itself, in any layout."""
    x, grad = normal((4, 3, 6)), normal((4, 3, 6), seed="grad")
    for forward, backward, rest in (
        (OPERATORS.batch_norm_train, OPERATORS.batch_norm_bwd, (None, None, 1e-5, True, True, True, True)),
        (
            lambda x, *a: OPERATORS.row_norm_fwd(x, *a, True),
            OPERATORS.row_norm_bwd,
            (None, None, 1e-5, True, 1, False, 0.0, True, True, True),
        ),
    ):
        _, statistics = forward(x, None, None, 1e-5)
        spread = statistics.t().contiguous().t()
        assert not spread.is_contiguous()
        for a, b in zip(backward(grad, x, spread, *rest), backward(grad, x, statistics, *rest), strict=True):
            assert torch.equal(a, b)


def test_parameters_of_the_wrong_size_are_refused_in_the_backward_pass():
    """Gradients are written into memory of their size."""
    x = normal((4, 8))
    _, statistics = OPERATORS.batch_norm_train(x, None, None, 1e-5)
    for size in (0, 7, 9):
        for weight, bias in ((torch.ones(size), None), (None, torch.ones(size))):
            with pytest.raises(RuntimeError, match="one element per channel"):
                OPERATORS.batch_norm_bwd(x, x, statistics, weight, bias, 1e-5, True, True, True, True)


def test_an_update_is_whole_or_not_at_all():
    _, statistics = OPERATORS.batch_norm_train(normal((4, 8)), None, None, 1e-5)
    mean, count = torch.zeros(8), torch.tensor(0)
    for var in (torch.ones(8, dtype=torch.int32), torch.ones(1).expand(8), torch.ones(4), torch.ones(2, 4)):
        with pytest.raises(RuntimeError):
            OPERATORS.batch_norm_update(mean, var, count, statistics, 4, 0.1)
    with pytest.raises(RuntimeError):
        OPERATORS.batch_norm_update(mean, torch.ones(8), count, statistics, 1, 0.1)
    assert torch.equal(mean, torch.zeros(8))
    assert int(count) == 0


def test_memory_that_was_taken_away_is_noticed():
    """Sharded training frees a parameter's storage and keeps the tensor."""
    freed = torch.full((8,), 5.0)
    freed.untyped_storage().resize_(0)
    x, many = normal((4, 8)), torch.ones(20000, 8)  # a thread's error would have no text
    for call in (
        lambda: OPERATORS.layer_norm(many, freed, None, 1e-5),
        lambda: OPERATORS.layer_norm(many, None, freed, 1e-5),
        lambda: OPERATORS.row_norm_bwd(many, many, torch.ones(1, 20000), freed, None, 1e-5, False),
        lambda: OPERATORS.layer_norm(x, freed, None, 1e-5),
        lambda: OPERATORS.layer_norm(x, None, freed, 1e-5),
        lambda: OPERATORS.layer_norm(freed, None, None, 1e-5),
        lambda: OPERATORS.batch_norm(x, freed, torch.ones(8), None, None, 1e-5),
    ):
        with pytest.raises(RuntimeError, match="not allocated"):
            call()
