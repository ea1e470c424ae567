"""Counted bytes, and the copies that move them."""

import dataclasses

import pytest

from normkit.bench import machine, traffic
from normkit.bench.cases import Case

from .conftest import MACHINE

L2 = 2**20
IMAGES = (32, 64, 56, 56)  # a channel holds 401,408 bytes of float32


def counted(op, shape, direction, dtype="float32", channels_last=False, threads=2, device="cpu"):
    on = dataclasses.replace(MACHINE, device=device, l2_bytes=L2, threads=threads)
    found = traffic.traffic(Case(op, shape, direction, dtype, channels_last), on)
    return found.reads, found.writes, found.parts


@pytest.mark.parametrize("op", ["rms_norm", "layer_norm", "batch_norm_inference"])
def test_one_pass_each_way(op):
    shape = IMAGES if op == "batch_norm_inference" else (512, 4096)
    assert counted(op, shape, "forward") == (1, 1, ("copy",))
    assert counted(op, shape, "backward") == (2, 1, ("triad",))
    assert counted(op, shape, "forward+backward") == (3, 2, ("copy", "triad"))


def test_training_reads_once_where_a_channel_stays_in_cache():
    assert counted("batch_norm_training", IMAGES, "forward") == (1, 1, ("copy",))
    assert counted("batch_norm_training", IMAGES, "backward") == (2, 1, ("triad",))
    assert counted("batch_norm_training", (64, *IMAGES[1:]), "forward") == (1, 1, ("copy",))
    # Two tensors of 802,816 bytes do not fit where one does.
    assert counted("batch_norm_training", (64, *IMAGES[1:]), "backward") == (4, 1, ("read2", "triad"))
    assert counted("batch_norm_training", (96, *IMAGES[1:]), "forward") == (2, 1, ("read", "copy"))


def test_channels_last_the_whole_tensor_has_to_stay():
    assert counted("batch_norm_training", IMAGES, "forward", channels_last=True)[0] == 2
    assert counted("batch_norm_training", IMAGES, "forward+backward", channels_last=True)[:2] == (6, 2)
    assert counted("batch_norm_training", (128, 512), "forward+backward")[:2] == (3, 2)
    assert counted("batch_norm_training", (1024, 512), "forward")[0] == 1  # two cores' caches
    assert counted("batch_norm_training", (1024, 512), "forward", threads=1)[0] == 2


@pytest.mark.parametrize("told", [None, "", "0K", "unknown"])
def test_the_cache_has_a_size_where_the_system_does_not_tell(told, tmp_path):
    file = tmp_path / "size"
    if told is not None:
        file.write_text(told)
    assert machine.l2_bytes(file) == machine.FALLBACK_L2


def test_the_cache_s_size_is_asked(tmp_path):
    file = tmp_path / "size"
    file.write_text("512K\n")
    assert machine.l2_bytes(file) == 2**19


def test_on_a_gpu_the_whole_tensor_has_to_stay():
    assert counted("batch_norm_training", IMAGES, "forward", device="cuda")[:2] == (2, 1)
    assert counted("batch_norm_training", (4, 64, 16, 16), "forward+backward", device="cuda")[:2] == (3, 2)
