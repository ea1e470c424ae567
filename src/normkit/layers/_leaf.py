"""How the layers stand in the graph that `torch.fx.symbolic_trace` makes: whole, as PyTorch's do."""

from __future__ import annotations

from typing import Any

from torch.fx import Proxy
from torch.nn import Module


def is_part(tracer: Any, layer: Module) -> bool:
    """Whether the layer is a part of the model that is traced, not the whole of it."""
    return getattr(tracer, "root", layer) is not layer


def as_leaf(input: Proxy, layer: Module) -> Any:
    """The layer's call written down as one node: what it does then still depends on `train` and `eval`."""
    tracer: Any = input.tracer
    return tracer.create_proxy("call_module", tracer.path_of_module(layer), (input,), {})
