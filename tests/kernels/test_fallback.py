"""A build without the C++ core: the same results from PyTorch's operators, one warning, a reason."""

import json

import pytest

from tests.process import python, sweep

BLOCKED = "import sys; sys.modules['normkit.kernels.cpu._core'] = None\n"


@pytest.fixture(scope="module")
def report():
    return sweep("--without-core")


def test_results(report):
    assert report["failures"] == []


def test_one_warning_names_the_remedy(report):
    (warning,) = report["warnings"]
    assert "PyTorch's own operators" in warning
    assert "C++20 compiler" in warning
    assert "pip install --no-build-isolation" in warning


def test_backends_say_why(report):
    assert report["instruction_set"] is None
    assert report["kernel"] == "PyTorch's own operators"
    assert report["why_not"].startswith("no C++ core: ")


def test_import_is_quiet_and_layers_work():
    code = (
        BLOCKED
        + """
import io, json, warnings
warnings.simplefilter("error")
import torch, normkit as nk
print(nk.backends()["cpu"])
warnings.simplefilter("default")
model = torch.nn.Sequential(nk.BatchNorm2d(3), torch.nn.Flatten(), nk.LayerNorm(12), nk.RMSNorm(12))
model(torch.randn(4, 3, 2, 2)).backward(torch.randn(4, 12))
compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
x = torch.randn(4, 3, 2, 2)
torch.testing.assert_close(compiled(x), model(x))
for call in (
    lambda: nk.functional.layer_norm(torch.ones(2, 3), (4,)),
    lambda: nk.functional.rms_norm(torch.ones(2, 3), (3,), torch.ones(2)),
    lambda: nk.functional.batch_norm(torch.ones(1, 3), None, None, training=True),
    lambda: nk.functional.layer_norm(torch.ones(2, 3), (3,), eps=-1.0),
):
    try:
        call()
    except ValueError as error:
        print("refused:", error)
"""
    )
    done = python("-c", code)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("cpu: PyTorch's own operators (no C++ core: ")
    assert len([line for line in lines if line.startswith("refused: ")]) == 4
    assert done.stderr.count("UserWarning") == 1


def test_the_fallback_and_the_core_agree_on_layout():
    code = """
import json, torch, normkit as nk
x = torch.randn(2, 5, 3, 4)
last = x.contiguous(memory_format=torch.channels_last)
found = []
views = (last[:, :3], last[:, :1], x[:0], last[:0], x.transpose(2, 3), last[:1], x[:, :, :1, :1], x[..., ::2])
for t in (x, last, *views):
    t = t.detach().requires_grad_()
    y = nk.functional.batch_norm(t, None, None, training=True)
    (g,) = torch.autograd.grad(y, t, torch.ones_like(y))
    z = nk.functional.batch_norm(t, torch.zeros(t.shape[1]), torch.ones(t.shape[1]))
    # The stride of a dimension of one element says nothing.
    found.append([[s for s, size in zip(r.stride(), r.shape) if size != 1] for r in (y, g, z)])
print(json.dumps(found))
"""
    with_core, without = (json.loads(python("-c", block + code).stdout) for block in ("", BLOCKED))
    assert without == with_core
