"""A kernel with all but its tensors decided: what is launched directly, and what through Triton."""

from contextlib import contextmanager

import pytest
import torch

pytest.importorskip("triton", reason="Triton is for Linux")
from normkit.kernels.triton import bound, row_norm
from normkit.kernels.triton.bound import Bound, Calls, in_two, kind, maker, parameter_kind


class Kernel:
    """Stands in for what `triton.jit` makes, and for what that compiles: tells how it was launched."""

    arg_names = ("x", "y", "n", "ROWS", "COLUMNS")

    def __init__(self):
        self.launches = []

    def __getitem__(self, grid):
        def through_triton(*arguments, **options):
            self.launches.append(("Triton", grid, arguments, options))
            return self.Compiled(self)

        return through_triton

    class Compiled:
        """What Triton compiled."""

        function, packed_metadata = "function", "metadata"

        def __init__(self, kernel):
            self.kernel = kernel

        def run(self, x, y, z, stream, function, metadata, told, before, after, *arguments):
            assert (function, metadata) == (self.function, self.packed_metadata)
            assert (stream, told, before, after) == (0, None, None, None)
            self.kernel.launches.append(("direct", (x, y, z), arguments, {}))


def launched(*calls):
    kernel = Kernel()
    launch = Bound(kernel, (3,), torch.zeros(1), 5, warps=2, COLUMNS=8, ROWS=4)
    for tensors in calls:
        launch(*tensors)
    return kernel.launches


def test_the_second_call_is_direct_with_the_same_arguments_in_the_kernels_order():
    x = torch.zeros(4)
    first, second = launched((x, None), (x, None))
    assert first == ("Triton", (3, 1, 1), (x, None, 5, 4, 8), {"num_warps": 2, "enable_fp_fusion": True})
    assert second == ("direct", (3, 1, 1), (x.data_ptr(), 0, 5, 4, 8), {})


def test_tensors_that_lie_otherwise_are_compiled_for_on_their_own():
    x, odd = torch.zeros(4), torch.zeros(8)[1:]
    calls = [(odd, x), (odd, x), (x, x), (x, odd), (x, x), (odd, x), (odd, odd)]
    through = [how == "Triton" for how, *_ in launched(*calls)]
    assert through == [True, False, True, True, False, False, True]


def test_kinds_differ_by_all_that_a_kernel_is_compiled_or_launched_for():
    x = torch.zeros(2, 3)
    others = [x.double(), x.t(), torch.zeros(3, 2), x.as_strided((2, 3), (0, 1)), None]
    assert kind(x) == kind(x.clone())
    assert kind(x) not in map(kind, others)
    assert len(set(map(kind, others))) == len(others)


def test_kinds_of_parameters_differ_by_all_but_strides_where_they_are_dense():
    p = torch.zeros(2, 1, 3)
    others = [p.double(), p[0], torch.zeros(2, 3, 1), p.as_strided((2, 1, 3), (1, 1, 2)), None]
    assert parameter_kind(p) == parameter_kind(p.as_strided((2, 1, 3), (3, 7, 1)))
    assert parameter_kind(p) not in map(parameter_kind, others)
    assert len(set(map(parameter_kind, others))) == len(others)


def test_an_output_has_the_format_that_was_asked_for():
    x, images = torch.zeros(5, 6), torch.zeros(2, 3, 4, 5)
    last = images.contiguous(memory_format=torch.channels_last)
    rows = (x, x[:, :3], x.t(), x[::2], x[0].expand(5, 6), x[:0], x.as_strided((1, 6), (9, 1)))
    for format, inputs in (
        (torch.contiguous_format, (*rows, images, last)),
        (torch.channels_last, (images, last, last[:, :2], last[:1])),
    ):
        for t in inputs:
            made, wanted = maker(t, format)(t), torch.empty_like(t, memory_format=format)
            assert (made.shape, made.stride(), made.dtype) == (wanted.shape, wanted.stride(), wanted.dtype)


def test_launches_go_to_the_current_stream_of_the_tensors_gpu(monkeypatch):
    """With the second of two GPUs stood in for, and the first current."""
    entered, streams = [], []

    @contextmanager
    def on(gpu):
        entered.append(gpu)
        yield

    monkeypatch.setattr(bound, "index_of", lambda device: 1)
    monkeypatch.setattr(bound, "is_current", lambda gpu: gpu == current[0])
    monkeypatch.setattr(bound, "on", on)
    monkeypatch.setattr(bound, "current_stream", lambda gpu: 70 + gpu)
    monkeypatch.setattr(bound, "direct", lambda *_: lambda stream, addresses: streams.append(stream))
    current, x = [0], torch.zeros(4)
    launch = Bound(Kernel(), (3,), x, warps=2)
    launch(x, x)
    launch(x, x)
    current[0] = 1
    launch(x, x)
    assert entered == [1, 1]
    assert streams == [71, 71]


def test_calls_are_forgotten_before_there_are_too_many(monkeypatch):
    monkeypatch.setattr(bound, "MOST_CALLS", 2)
    calls = Calls()
    for key in range(5):
        assert calls.keep(key, str(key)) == str(key)
        assert calls[key] == str(key)
        assert len(calls) <= 2


def test_a_scalar_is_given_in_two_numbers_of_float32():
    for number in (1e-5, 0.1, 1 / 3, 1.0):
        high, low = in_two(number)
        assert high == torch.tensor(high).item()
        assert abs(high + low - number) == 0
        assert abs(high - number) <= 2**-24 * number


def test_rows_that_do_not_begin_at_multiples_of_16_bytes_are_told():
    whole = torch.zeros(8, 24, dtype=torch.bfloat16)
    assert whole.data_ptr() % 16 == 0
    apart = row_norm._lies_apart
    assert not apart(1, whole[:, :16].contiguous())
    assert apart(1, whole[:, :16])  # multiples of 16 bytes too, but not of 16 numbers: Triton takes no note
    assert not apart(1, whole[::2, :16])
    assert not apart(1, whole[::2, 8:])
    assert apart(1, whole[::2, 7:23])
    assert apart(1, whole[::2, :16], whole[::2, 7:23])
    assert not apart(2, whole.view(2, 4, 24))
