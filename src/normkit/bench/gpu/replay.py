"""Calls recorded as a CUDA graph, and the GPU's own clock: what the host does between them is not timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch

from normkit.bench.timing import Call

__all__ = ["Replay", "by_events", "kernels", "own_stream"]

WARM_UP = 2  # calls: the first compiles, and what is allocated in the second is allocated in all that follow


class Replay:
    """Calls that one launch repeats, in turn.

    All results stay, so that each call has memory of its own, and so do the calls with what they hold: the
    record has addresses only, and PyTorch gives what nobody holds back to the driver.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        """Record `calls`, on the current stream, which must not be the default one."""
        self.calls, self._held = len(calls), tuple(calls)
        for _ in range(WARM_UP):
            calls[0]()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=torch.cuda.current_stream()):
            self._results = [call() for call in calls]

    def __call__(self) -> None:
        """Launch them all."""
        self._graph.replay()


def by_events(call: Call, repeats: int) -> float:
    """Seconds on the GPU's clock."""
    start, end = (torch.Event("cuda", enable_timing=True) for _ in range(2))
    call()  # keeps the GPU busy until the next launches are there
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    milliseconds = start.elapsed_time(end)
    return max(milliseconds / 1e3, 1e-9) / repeats


def own_stream() -> AbstractContextManager[object]:
    """A stream besides the default one, on which nothing can be recorded."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    return torch.cuda.stream(stream)


def kernels(call: Callable[[], object]) -> tuple[str, ...]:
    """The names of the kernels that a call launches, each once."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    names = (event.name for event in profile.events() if event.device_type.name == "CUDA")
    return tuple(dict.fromkeys(name[:120] for name in names))
