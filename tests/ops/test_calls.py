"""The calls of eager mode in C++: the operator's results, and the operator itself where others have a say."""

import pytest
import torch
from torch._functorch.aot_autograd import aot_function
from torch._functorch.compilers import nop
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import profiler
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from normkit import _errors, functional
from normkit.kernels import cpu
from normkit.ops import _define
from normkit.ops import batch_norm as channels
from normkit.ops import row_norm as rows
from tests.data import normal

X, W, B = normal((4, 8)), normal((8,), seed="weight"), normal((8,), seed="bias")
MEAN, VAR = normal((8,), seed="mean"), normal((8,), seed="var").square()

pytestmark = pytest.mark.skipif(
    _define._eager is None or cpu.why_not is not None, reason="eager mode in C++ was not built"
)

# The operator's name, and arguments: as few as there may be, all, and with what has a default left out.
CALLS = {
    "layer_norm": [(X, None, None, 1e-5), (X, W, B, 1e-5, 1), (X, W[None].expand(4, 8), None, 0.0, 2)],
    "rms_norm": [(X, None, None, None), (X, W, B, 1e-6, 1, True, 0.5), (X, W, None, 1e-6, 1)],
    "batch_norm": [(X, MEAN, VAR, None, None, 1e-5), (X, MEAN, VAR, W, B, 1e-5)],
    "batch_norm_step": [
        (X, None, None, 1e-5, None, None, None, 0.1),
        (X, W, B, 1e-5, MEAN, VAR, torch.tensor(3), None),
    ],
}
WITH_GRAD = {
    "row_norm_with_grad": [
        (X, None, None, None, True),
        (X, W, B, 1e-5, False, 1, True, 0.5),
        (X, W, None, 1e-5, True, 1),
    ],
    "batch_norm_step_with_grad": [
        (X, None, None, 1e-5, None, None, None, 0.1),
        (X, W, B, 1e-5, MEAN, VAR, torch.tensor(3), None),
    ],
    "batch_norm_fixed_with_grad": [(X, MEAN, VAR, None, None, 1e-5), (X, MEAN, VAR, W, B, 1e-5)],
}
FEW = {name: few for name, (few, *_) in (CALLS | WITH_GRAD).items()}
EVERY_NAME = pytest.mark.parametrize("name", FEW)


def dispatched(name):
    return getattr(torch.ops.normkit, name).default._op


class Spied:
    """The call of that name, and what it left to the operator."""

    def __init__(self, name):
        self.operator, self.left = dispatched(name), []
        self.call = _define._eager.in_eager_mode(name, self._operator)

    def _operator(self, *arguments):
        self.left.append(arguments)
        return self.operator(*arguments)

    def __call__(self, *arguments):
        return self.call(*arguments)


def fresh(arguments, wanted):
    """Copies, as running statistics are changed; where wanted, floats require a gradient."""
    return [
        a.clone().requires_grad_(wanted and a is not MEAN and a is not VAR and a.is_floating_point())
        if isinstance(a, torch.Tensor)
        else a
        for a in arguments
    ]


def tensors_of(arguments):
    return [a for a in arguments if isinstance(a, torch.Tensor)]


def test_the_operators_are_called_so():
    plain = rows.layer_norm_direct, rows.rms_norm_direct, channels.batch_norm_direct
    for call in (*plain, channels.batch_norm_step_direct):
        assert call.__self__ is not None
        assert call.__name__ in CALLS
    for call in (rows.row_norm_with_grad, channels.batch_norm_fixed_with_grad):
        assert call.__name__ in WITH_GRAD
    assert channels.batch_norm_step_with_grad.__name__ == "batch_norm_step_with_grad"


@pytest.mark.parametrize(
    ("name", "arguments"), [(name, arguments) for name, all in CALLS.items() for arguments in all]
)
def test_inference_has_the_operators_bits(name, arguments):
    spied, results = Spied(name), []
    with torch.inference_mode():
        for call in (spied, spied.operator):
            given = fresh(arguments, wanted=False)
            y = call(*given)
            results.append([*(y if isinstance(y, tuple) else (y,)), *tensors_of(given)])
            assert results[-1][0].is_inference()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not spied.left


@pytest.mark.parametrize(
    ("name", "arguments"), [(name, arguments) for name, all in WITH_GRAD.items() for arguments in all]
)
def test_training_has_the_operators_bits(name, arguments):
    spied, results = Spied(name), []
    for call in (spied, spied.operator):
        given = fresh(arguments, wanted=True)
        y = call(*given)
        y.backward(normal((4, 8), seed="grad"))
        tensors = tensors_of(given)
        results.append([y.detach(), *tensors, *(t.grad for t in tensors if t.requires_grad)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not spied.left


COUNT, ONE = torch.tensor(3), torch.ones(1)
SOUND = {
    "nothing tracked": ((None, None, None), X, 0.1),
    "all": ((MEAN, VAR, COUNT), X, None),
    "images of another dtype": ((MEAN.half(), VAR.double(), None), X.bfloat16()[..., None, None], 0.1),
    "one channel's, spread": ((ONE.expand(1), None, None), X[:, :1], 0.1),
    "no batch": ((MEAN, VAR, None), X[:0], 0.1),
    "no channels": ((None, None, None), X[:, :0], 0.1),
}
UNSOUND = {
    "one value per channel": ((MEAN, VAR, None), X[:1], 0.1),
    "another number of channels": ((MEAN, VAR[:7], None), X, 0.1),
    "a matrix": ((MEAN[None], VAR, None), X, 0.1),
    "integers": ((MEAN.int(), VAR, None), X, 0.1),
    "numbers of eight bits": ((MEAN.to(torch.float8_e5m2), VAR, None), X, 0.1),
    "a gradient": ((MEAN, VAR.clone().requires_grad_(), None), X, 0.1),
    "one number for all": ((MEAN, ONE.expand(8), None), X, 0.1),
    "sparse": ((MEAN.to_sparse(), VAR, None), X, 0.1),
    "on another device": ((MEAN.to("meta"), VAR, None), X, 0.1),
    "no share and no count": ((MEAN, VAR, None), X, None),
    "a count that is none": ((MEAN, VAR, ONE), X, 0.1),
    "two counts": ((MEAN, VAR, torch.tensor([1, 2])), X, 0.1),
}


@pytest.mark.parametrize("case", SOUND | UNSOUND)
def test_whether_a_batch_may_be_trained_with(case):
    tracked, x, momentum = (SOUND | UNSOUND)[case]
    wanted = case in SOUND
    assert channels.may_train(*tracked, x, momentum) is wanted
    assert _errors.may_train(tracked, x, momentum) is wanted


class OfItsOwn(torch.Tensor):
    pass


def test_what_is_not_plain_is_not_sure():
    assert channels.may_train(MEAN, VAR, None, X, 1) is False  # a whole number
    assert channels.may_train(MEAN, VAR, None, W, 0.1) is False  # no channels
    assert channels.may_train(MEAN, VAR, None, X.as_subclass(OfItsOwn), 0.1) is False
    with Called():
        assert channels.may_train(MEAN, VAR, None, X, 0.1) is False


def test_a_wrapped_tensors_sizes_may_be_symbols():
    def step(x):
        return torch.func.grad(lambda t: functional.batch_norm(t, None, None, training=True).pow(3).sum())(x)

    compiled = aot_function(step, nop, nop, dynamic=True)
    assert torch.equal(compiled(X), step(X))


class Dispatched(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class Called(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


WATCHED = {
    "dispatch mode": Dispatched,
    "function mode": Called,
    "fake tensors": lambda: FakeTensorMode(allow_non_fake_inputs=True),
    "profiler": profiler.profile,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@EVERY_NAME
@pytest.mark.parametrize("watch", WATCHED)
def test_who_listens_is_shown_the_operator(name, watch):
    spied = Spied(name)
    with WATCHED[watch]():
        spied(*fresh(FEW[name], wanted=name in WITH_GRAD))
    assert len(spied.left) == 1


def test_a_transformation_has_its_say():
    spied = Spied("layer_norm")
    y = torch.vmap(lambda x: spied(x, W, None, 1e-5))(X[None])
    assert torch.equal(y[0], spied.operator(X, W, None, 1e-5))
    assert len(spied.left) == 1


@pytest.mark.filterwarnings("ignore:`torch.jit.trace`")
def test_a_trace_has_the_operator():
    spied = Spied("layer_norm")
    traced = torch.jit.trace(lambda x: spied(x, W, None, 1e-5), (X,), check_trace=False)
    assert "normkit::layer_norm" in str(traced.graph)


@pytest.mark.parametrize("name", WITH_GRAD)
def test_below_autograd_it_is_the_operators(name):
    spied = Spied(name)
    with torch._C._AutoDispatchBelowAutograd():
        y = spied(*fresh(FEW[name], wanted=True))
    assert y.grad_fn is None
    assert len(spied.left) == 1


class Sub(torch.Tensor):
    """A subclass."""


STAND_INS = {
    "subclass": lambda t: t.as_subclass(Sub),
    "negated": lambda t: torch._neg_view(-t),
    "zeros": lambda t: torch._efficientzerotensor(t.shape),
    "meta": lambda t: t.to("meta"),
    "list": lambda t: t.tolist(),
}


@pytest.mark.parametrize("stand_in", STAND_INS)
@pytest.mark.parametrize("place", range(3))
def test_what_is_not_quite_a_tensor_is_the_operators(stand_in, place):
    spied, arguments = Spied("layer_norm"), [X, W, B]
    arguments[place] = STAND_INS[stand_in](arguments[place])
    try:
        spied(*arguments, 1e-5)
    except (RuntimeError, NotImplementedError):
        assert stand_in in ("meta", "list")
    assert len(spied.left) == 1


@pytest.mark.parametrize("eps", [torch.tensor(1e-5), 1, "1e-5", None, True])
def test_what_is_not_quite_a_number_is_the_operators(eps):
    spied = Spied("layer_norm")
    try:
        spied(X, W, None, eps)
    except RuntimeError:
        assert eps in ("1e-5", None)
    assert len(spied.left) == 1


@pytest.mark.parametrize("count", [0, 1, 3, 6])
def test_too_few_and_too_many_arguments_are_the_operators_to_refuse(count):
    spied = Spied("layer_norm")
    with pytest.raises(RuntimeError, match="layer_norm"):
        spied(*(X, W, B, 1e-5, 1, 2)[:count])
    assert len(spied.left) == 1


def test_the_cores_refusal_is_an_error():
    with pytest.raises(RuntimeError, match="weight must have the shape"):
        Spied("layer_norm")(X, W[:3], None, 1e-5)


def test_an_operator_without_a_call_is_itself():
    operator = dispatched("row_norm_fwd")
    assert _define._eager.in_eager_mode("row_norm_fwd", operator) is operator
