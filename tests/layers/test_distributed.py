"""DistributedDataParallel over gloo, two processes on this machine."""

import subprocess
import sys

import torch

from tests.process import ROOT

from .distributed_worker import RANKS


def test_two_processes(tmp_path):
    assert torch.distributed.is_available()
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.layers.distributed_worker", str(rank), str(tmp_path / "store")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]
    ends = [worker.communicate(timeout=120) for worker in workers]
    for worker, (out, err) in zip(workers, ends, strict=True):
        assert worker.returncode == 0, f"{out}\n{err}"
        assert out.strip().endswith("done")
