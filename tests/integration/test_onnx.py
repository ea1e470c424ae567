"""ONNX: our layers become the standard operators, and ONNX Runtime gets the same results from the file."""

import onnx
import onnxruntime
import pytest
import torch

import normkit as nk

from .models import EVERY, assert_near, data, pair

STANDARD = {
    "transformer": {"LayerNormalization": 3, "RMSNormalization": 2},
    "convnet": {"BatchNormalization": 2},
}
FIRST_WITH_RMS = 23
# PyTorch's exporters, of the older: that there is a newer; of the newer: what it is written with.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def exported(model, x, path, **options):
    """The file, read and checked."""
    torch.onnx.export(model, (x,), str(path), input_names=["x"], verbose=False, **options)
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    return file


def kinds(file):
    found = [node.op_type for node in file.graph.node]
    assert {node.domain for node in file.graph.node} == {""}
    return {kind: found.count(kind) for kind in found if kind.endswith("Normalization")}


def run(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x.numpy()})
    return torch.from_numpy(y)


@EVERY
@pytest.mark.parametrize("gradients", [True, False])
def test_standard_operators(gradients, name, tmp_path):
    theirs, ours = (m.eval() for m in pair(name))
    path = tmp_path / "model.onnx"
    # Unoptimised: the exporter would fold BatchNorm into a convolution before it.
    options = {"dynamo": True, "opset_version": FIRST_WITH_RMS, "optimize": False}
    batch = torch.export.Dim("batch", min=2)
    with torch.set_grad_enabled(gradients):
        file = exported(ours, data(name)[0], path, dynamic_shapes=({0: batch},), **options)
    assert kinds(file) == STANDARD[name]
    for rows in (4, 7):
        x = data(name, rows=rows)[0]
        assert_near([run(path, x)], [theirs(x).detach()])


@EVERY
def test_with_the_exporters_defaults(name, tmp_path):
    """An older operator set, optimised: RMSNorm becomes its formula, BatchNorm a part of the convolution."""
    theirs, ours = (m.eval() for m in pair(name))
    path = tmp_path / "model.onnx"
    file = exported(ours, data(name)[0], path, dynamo=True)
    right = exported(theirs, data(name)[0], tmp_path / "theirs.onnx", dynamo=True)
    assert [n.op_type for n in file.graph.node] == [n.op_type for n in right.graph.node]
    x = data(name)[0]
    assert_near([run(path, x)], [theirs(x).detach()])


def test_the_older_exporter(tmp_path):
    """The one that traces. It knows no RMSNorm, PyTorch's neither."""
    torch.manual_seed(0)
    layers = [
        nk.LayerNorm(5),
        torch.nn.Conv1d(4, 4, 1),
        nk.BatchNorm1d(4),
        torch.nn.Tanh(),
        nk.LayerNorm((4, 5)),
    ]
    ours, x, path = torch.nn.Sequential(*layers).eval(), torch.randn(3, 4, 5), tmp_path / "model.onnx"
    file = exported(ours, x, path, dynamo=False, opset_version=17, do_constant_folding=False)
    assert kinds(file)["LayerNormalization"] == 2
    assert_near([run(path, x)], [ours(x).detach()])


def test_the_variants_of_rms_norm(tmp_path):
    torch.manual_seed(0)
    ours = torch.nn.Sequential(
        nk.RMSNorm(5, bias=True, gain_offset=1.0),
        torch.nn.Linear(5, 5),
        nk.RMSNorm(5, eps=0.1, eps_mode="outside"),
    ).eval()
    for p in ours.parameters():
        torch.nn.init.normal_(p)
    x, path = torch.randn(3, 5), tmp_path / "model.onnx"
    file = exported(ours, x, path, dynamo=True, opset_version=FIRST_WITH_RMS)
    assert kinds(file) == {"RMSNormalization": 1}  # eps outside the root is no operator's
    assert_near([run(path, x)], [ours(x).detach()])
