"""The floor's copies move what they are timed for."""

import pytest
import torch

import normkit as nk
from normkit.bench import floor

core = pytest.mark.skipif(nk.backends()["cpu"].why_not is not None, reason="no C++ core")
PARTS = ("copy", "triad", "read", "read2")


def tensors(shape=(4, 8, 16, 16), memory=torch.channels_last):
    a, b = (torch.randn(shape).contiguous(memory_format=memory) for _ in range(2))
    return a, b, torch.full_like(a, torch.nan)


@core
def test_every_part_has_a_way():
    ways = floor.variants(*tensors(), PARTS)
    assert {part: set(found) for part, found in ways.items()} == {
        "copy": {"memcpy", "SIMD", "SIMD, streaming"},
        "triad": {"SIMD", "SIMD, streaming"},
        "read": {"SIMD"},
        "read2": {"SIMD"},
    }


@core
@pytest.mark.parametrize("way", ["memcpy", "SIMD", "SIMD, streaming"])
def test_a_copy_copies(way):
    a, b, target = tensors()
    floor.variants(a, b, target, PARTS)["copy"][way]()
    assert torch.equal(target, a)


@core
@pytest.mark.parametrize("way", ["SIMD", "SIMD, streaming"])
def test_a_triad_reads_both(way):
    a, b, target = tensors()
    floor.variants(a, b, target, PARTS)["triad"][way]()
    assert torch.equal(target, a + b)


@core
def test_reads_write_nothing():
    a, b, target = tensors()
    before = a.clone(), b.clone()
    ways = floor.variants(a, b, target, PARTS)
    assert ways["read"]["SIMD"]() is None
    assert ways["read2"]["SIMD"]() is None
    assert target.isnan().all()
    assert (torch.equal(a, before[0]), torch.equal(b, before[1])) == (True, True)


def test_without_the_core_there_is_pytorch_s_copy(monkeypatch):
    missing = nk.backends()["cpu"]
    monkeypatch.setattr(floor, "backends", lambda: {"cpu": type(missing)("cpu", "PyTorch's", "not built")})
    a, b, target = tensors()
    ways = floor.variants(a, b, target, ("copy", "triad"))
    assert (set(ways["copy"]), ways["triad"]) == ({"memcpy"}, {})
    ways["copy"]["memcpy"]()
    assert torch.equal(target, a)


def test_an_input_that_wants_gradients_is_copied_without_them():
    a, b, target = tensors()
    floor.variants(a.requires_grad_(), b, target, ("copy",))["copy"]["memcpy"]()
    assert not target.requires_grad
