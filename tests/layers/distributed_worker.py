"""Two processes train a model whose norms are ours with DistributedDataParallel: worker RANK FILE"""

import faulthandler
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import normkit as nk

RANKS = 2


def model():
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 8),
        nk.LayerNorm(8),
        nk.BatchNorm1d(8),
        torch.nn.ReLU(),
        nk.RMSNorm(8),
        torch.nn.Linear(8, 2),
    )


def batch(step, rank):
    generator = torch.Generator().manual_seed(10 * step + rank)
    return torch.randn(5, 6, generator=generator), torch.randn(5, 2, generator=generator)


def gradients(net, x, grad):
    net.zero_grad()
    net(x).backward(grad)
    return [p.grad.clone() for p in net.parameters()]


def main(rank, file):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=RANKS)
    plain = model()
    parallel = DistributedDataParallel(model())
    for step in range(2):
        found = gradients(parallel, *batch(step, rank))
        # BatchNorm's statistics are each process's own: the mean of two gradients is what is due.
        alone = [gradients(plain, *batch(step, r)) for r in range(RANKS)]
        for ours, *parts in zip(found, *alone, strict=True):
            torch.testing.assert_close(ours, sum(parts) / RANKS, rtol=1e-5, atol=1e-6)
        gathered = [torch.empty_like(found[0]) for _ in range(RANKS)]
        dist.all_gather(gathered, found[0])
        assert torch.equal(gathered[0], gathered[1])
    assert int(parallel.module[2].num_batches_tracked) == 2
    # The group goes last, and when both processes are done with it.
    del parallel
    dist.barrier()
    dist.destroy_process_group()
    print("done")


if __name__ == "__main__":
    faulthandler.enable()
    main(int(sys.argv[1]), sys.argv[2])
