"""JAX on the CPU: the formula under `jax.jit`, with as many threads as XLA likes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from normkit.bench.cases import EPS, MOMENTUM, Case
from normkit.bench.contenders.base import Prepared, Unavailable
from normkit.bench.operands import Operands, Results, result_names


def prepare(case: Case, operands: Operands, threads: int) -> Prepared:
    """Inputs lie in JAX's own memory beforehand; results come from its own allocator."""
    if case.direction == "backward":
        raise Unavailable("a jitted function has its forward pass inside")
    jax.config.update("jax_enable_x64", case.dtype == "float64")
    cpu = jax.devices("cpu")[0]
    o = operands
    tensors = (_channels_at_the_end(case, o.x), o.weight, o.bias, o.running_mean, o.running_var)
    values = [None if t is None else _to_jax(t, cpu) for t in tensors]
    upstream = _to_jax(_channels_at_the_end(case, o.upstream), cpu)
    norm = _norm(case)

    def both(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, upstream: Any) -> Any:
        y, gradients, running = jax.vjp(lambda *a: norm(*a, mean, variance), x, weight, bias, has_aux=True)
        return (y, *gradients(upstream), *running)

    def forward(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, upstream: Any) -> Any:
        y, running = norm(x, weight, bias, mean, variance)
        return (y, *running)

    compiled = jax.jit(forward if case.direction == "forward" else both)

    def call() -> Any:
        return jax.block_until_ready(compiled(*values, upstream))

    def results() -> Results:
        arrays = [_from_jax(case, array) for array in call() if array is not None]
        return dict(zip(result_names(case), arrays, strict=True))

    return Prepared(call, results, allocates=False)


def _norm(case: Case) -> Any:
    axes = -1 if case.is_row_norm else tuple(a for a in range(len(case.shape)) if a != _channel_axis(case))
    wide = jnp.float64 if case.dtype == "float64" else jnp.float32

    def along(parameter: Any) -> Any:
        if case.is_row_norm:
            return parameter.astype(wide)
        shape = [1] * len(case.shape)
        shape[_channel_axis(case)] = -1
        return parameter.astype(wide).reshape(shape)

    def norm(x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any) -> Any:
        data, running = x.astype(wide), ()
        if case.op == "rms_norm":
            y = data * jax.lax.rsqrt(jnp.mean(jnp.square(data), axes, keepdims=True) + EPS) * along(weight)
            return y.astype(x.dtype), running
        if case.op == "batch_norm_inference":
            mean, variance = along(running_mean), along(running_var)
        else:
            mean = jnp.mean(data, axes, keepdims=True)
            variance = jnp.mean(jnp.square(data - mean), axes, keepdims=True)
        if case.op == "batch_norm_training":
            unbiased = variance * (case.sharing / (case.sharing - 1))
            running = tuple(
                ((1 - MOMENTUM) * old.astype(wide) + MOMENTUM * new.reshape(-1)).astype(old.dtype)
                for old, new in ((running_mean, mean), (running_var, unbiased))
            )
        y = (data - mean) * jax.lax.rsqrt(variance + EPS) * along(weight) + along(bias)
        return y.astype(x.dtype), running

    return norm


def _channel_axis(case: Case) -> int:
    return len(case.shape) - 1 if case.channels_last else 1


def _channels_at_the_end(case: Case, tensor: Tensor) -> Tensor:
    # JAX knows no memory formats: channels-last is an array with its axes in that order.
    return tensor.detach().permute(0, 2, 3, 1) if case.channels_last else tensor.detach()


def _to_jax(tensor: Tensor, cpu: Any) -> Any:
    wide = tensor.detach().contiguous()
    array = wide.float().numpy() if tensor.dtype == torch.bfloat16 else wide.numpy()
    name = str(tensor.dtype).removeprefix("torch.")
    return jax.device_put(jnp.asarray(array, dtype=getattr(jnp, name)), cpu)


def _from_jax(case: Case, array: Any) -> Tensor:
    wide = torch.from_numpy(np.array(array, dtype=np.float64))
    return wide.permute(0, 3, 1, 2) if case.channels_last and wide.dim() == 4 else wide
