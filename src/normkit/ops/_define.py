"""How an operator is made known to PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._C import (
    _are_functorch_transforms_active,
    _is_torch_function_mode_enabled,
    _is_tracing,
    _len_torch_dispatch_stack,
)
from torch.autograd import profiler
from torch.nn import Parameter

from normkit.kernels import gpu
from normkit.ops import _compiled

Operator: TypeAlias = Callable[..., Tensor]
Operators: TypeAlias = Callable[..., tuple[Tensor, ...]]


def define(schema: str, *, fallback: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Define ``normkit::schema`` and return it.

    fallback: serves every device that has no kernel of ours.
    fake: makes results of the right shape, dtype and strides without data, for the compiler.
    """
    name, signature = _split(schema)
    torch.library.define(f"normkit::{name}", signature, tags=torch.Tag.pt2_compliant_tag)
    torch.library.impl(f"normkit::{name}", "default", fallback)
    torch.library.impl(f"normkit::{name}", "cuda", gpu.serve(name, fallback))
    torch.library.register_fake(f"normkit::{name}", _on_one_device(fake))
    return getattr(torch.ops.normkit, name).default


def _on_one_device(fake: Callable[..., Any]) -> Callable[..., Any]:
    """`fake`, but not for tensors of several devices.

    Among real tensors and one on the meta device, PyTorch's dispatcher picks the fake kernel.
    """

    @functools.wraps(fake)
    def checked(*arguments: Any) -> Any:
        if len({a.device for a in arguments if isinstance(a, Tensor)}) > 1:
            raise RuntimeError("normkit: all tensors must be on one device")
        return fake(*arguments)

    return checked


def differentiate_again(
    formula: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad_output: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients of ``formula(*inputs)``, themselves differentiable.

    What a backward pass returns where a graph of it is wanted: the kernels' results have none.
    """
    with torch.enable_grad():
        output = formula(*inputs)
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    grads = iter(torch.autograd.grad(output, wanted, grad_output, create_graph=True, allow_unused=True))
    return tuple(next(grads) if t is not None and t.requires_grad else None for t in inputs)


def direct(operator: Any) -> Any:
    """The operator as eager mode calls it: in C++, or at least without the Python frame that wraps it.

    That frame is a tenth of a small call's time, arguments and the dispatcher a third (ops/calls.cpp). The
    compiler knows the operator, not this.
    """
    dispatched = getattr(operator, "_op", operator)
    return _eager.in_eager_mode(operator._opname, dispatched) if _eager else dispatched


def asked_in_eager_mode(name: str) -> Callable[..., bool]:
    """A question to eager mode in C++ (ops/calls.cpp), which says no also where it can't tell."""
    return getattr(_eager, name) if _eager else lambda *_: False


def at_once(operator: Any) -> Any:
    """The operator, for eager calls on a GPU that want no gradient: its kernel, without PyTorch's dispatcher.

    The dispatcher's share of a small call on the host is as large as the kernel's own launch. It is asked all
    the same where it would do more than to call the kernel: for whoever listens in (a mode, a transformation,
    a tracer, a profiler), and for what is not quite a tensor or a number.
    """
    dispatched = direct(operator)
    tensors = sum("Tensor" in str(a.type) for a in operator._schema.arguments)  # which come first
    kernel: Callable[..., Any] | None = None

    def call(*arguments: Any) -> Any:
        nonlocal kernel
        if _is_watched() or not _are_plain(arguments[:tensors], arguments[tensors:]):
            return dispatched(*arguments)
        if kernel is None:
            kernel = gpu.kernel_of(operator._opname, dispatched)
        return kernel(*arguments)

    return call


def _is_watched() -> bool:
    return (
        _len_torch_dispatch_stack() > 0
        or _is_torch_function_mode_enabled()
        or _are_functorch_transforms_active()
        or _is_tracing()
        or profiler._is_profiler_enabled
    )


def _are_plain(tensors: tuple[Any, ...], numbers: tuple[Any, ...]) -> bool:
    for t in tensors:
        # Memory does not hold what a negated view or a symbolic zero stands for.
        if t is not None and (type(t) not in _TENSORS or t.is_neg() or t._is_zerotensor()):
            return False
    for n in numbers:  # noqa: SIM110  `all` takes twice as long
        if type(n) not in _NUMBERS:
            return False
    return True


_TENSORS = frozenset({Tensor, Parameter})
_NUMBERS = frozenset({type(None), float, int, bool})


def with_gradient(
    schema: str, function: type[torch.autograd.Function], forward: Callable[..., tuple[Tensor, ...]]
) -> Any:
    """An eager call that a gradient is wanted of: ``normkit::schema``, by a node in C++ (autograd.cpp).

    If not, or not for this PyTorch, `function` serves, which takes the same arguments: its ``apply``
    without the Python frame around it. The frame asks whether `torch.func` is at work;
    `normkit.functional` has asked already. `forward`, whose first result is the output, serves below
    autograd, where nobody keeps a graph.
    """
    name, signature = _split(schema)
    torch.library.define(f"normkit::{name}", signature)
    torch.library.impl(f"normkit::{name}", "default", lambda *arguments: forward(*arguments)[0])
    if torch._C._dispatch_has_kernel_for_dispatch_key(f"normkit::{name}", "Autograd"):
        return direct(getattr(torch.ops.normkit, name).default)
    return super(torch.autograd.Function, function).apply  # type: ignore[misc]


def define_again(schema: str, formula: Callable[..., tuple[Tensor | None, ...]]) -> None:
    """Define ``normkit::schema``, gradients that can be differentiated again, for the nodes in C++.

    formula: returns None for a gradient nobody asked for.
    """
    name, signature = _split(schema)
    torch.library.define(f"normkit::{name}", signature)
    torch.library.impl(f"normkit::{name}", "CompositeImplicitAutograd", formula)


def _split(schema: str) -> tuple[str, str]:
    start = schema.index("(")
    return schema[:start], schema[start:]


_eager = _compiled.load()
