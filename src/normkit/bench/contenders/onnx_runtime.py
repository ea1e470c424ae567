"""ONNX Runtime on its CPU provider: one operator, forward, on PyTorch's memory without a copy."""

from __future__ import annotations

import functools
from typing import Any

import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as errors
from torch import Tensor

from normkit.bench.cases import EPS, Case
from normkit.bench.contenders.base import Prepared, Unavailable
from normkit.bench.operands import Operands, Results

OPSET, IR_VERSION = 17, 8  # the first with LayerNormalization: any version that can run the bench reads it

# SimplifiedLayerNormalization is what ONNX Runtime's optimizer makes of an exported RMSNorm.
_OPERATORS = {
    "rms_norm": "SimplifiedLayerNormalization",
    "layer_norm": "LayerNormalization",
    "batch_norm_inference": "BatchNormalization",
}
_TYPES = {
    "float64": TensorProto.DOUBLE,
    "float32": TensorProto.FLOAT,
    "bfloat16": TensorProto.BFLOAT16,
    "float16": TensorProto.FLOAT16,
}


def prepare(case: Case, operands: Operands, threads: int) -> Prepared:
    """The output is bound once, so it is always in warm memory."""
    if case.direction != "forward" or case.op not in _OPERATORS:
        raise Unavailable("inference only")
    if case.channels_last:
        raise Unavailable("no channels-last BatchNormalization")
    inputs = _inputs(operands)
    output = torch.empty_like(operands.x)
    session = _session(case, inputs, threads)
    binding = session.io_binding()
    for name, tensor in inputs.items():
        binding.bind_input(name, "cpu", 0, _TYPES[case.dtype], list(tensor.shape), tensor.data_ptr())
    binding.bind_output("y", "cpu", 0, _TYPES[case.dtype], list(output.shape), output.data_ptr())
    call = functools.partial(session.run_with_iobinding, binding)

    def results() -> Results:
        call()
        return {"output": output.double()}

    return Prepared(call, results, allocates=False, alive=inputs)


def _inputs(operands: Operands) -> dict[str, Tensor]:
    named = {
        "x": operands.x,
        "scale": operands.weight,
        "bias": operands.bias,
        "mean": operands.running_mean,
        "var": operands.running_var,
    }
    return {name: tensor.detach() for name, tensor in named.items() if tensor is not None}


def _session(case: Case, inputs: dict[str, Tensor], threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it cannot do comes back as an exception
    # Its idle threads otherwise go on spinning and take the cores from whoever is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(_model(case, inputs), options, providers=["CPUExecutionProvider"])
    except (errors.NotImplemented, errors.InvalidGraph, errors.Fail) as error:
        raise Unavailable(f"no {_OPERATORS[case.op]} for {case.dtype}") from error


def _model(case: Case, inputs: dict[str, Tensor]) -> bytes:
    attributes: dict[str, Any] = {"epsilon": EPS} | ({"axis": -1} if case.is_row_norm else {})
    kind = _TYPES[case.dtype]
    graph = helper.make_graph(
        [helper.make_node(_OPERATORS[case.op], list(inputs), ["y"], **attributes)],
        "norm",
        [helper.make_tensor_value_info(name, kind, list(t.shape)) for name, t in inputs.items()],
        [helper.make_tensor_value_info("y", kind, list(case.shape))],
    )
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    return bytes(model.SerializeToString())
