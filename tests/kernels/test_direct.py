"""What Triton compiled, launched without its Python: the C function is given the same, or Triton is asked."""

from types import SimpleNamespace

import pytest

pytest.importorskip("triton", reason="Triton is for Linux")
import triton
from triton.backends.nvidia import driver

from normkit.kernels.triton.direct import direct

GRID, REST = (3, 2, 1), (5, None, "float32")
# A stream, and the tensors' addresses there.
ONCE, AGAIN = (0, (160, 0, 320)), (7, (16, 0, 32))


def spread(grid, stream, told, arguments):
    """What Triton 3.6 gives its C function."""
    return (*grid, stream, *told, *arguments)


def gathered(grid, stream, told, arguments):
    """What later versions do."""
    return (*grid, stream, *told, "annotations", arguments)


def accounted(grid, stream, told, arguments):
    """What they do where they keep an account of every access."""
    return (*grid, stream, *told, "annotations", (*arguments, "account"))


def reordered(grid, stream, told, arguments):
    """What none does yet."""
    return (stream, *grid, *told, *arguments)


def launcher_of(gives, name="CudaLauncher", **more):
    """(a launcher that gives its C function this, its calls, what the C function was given)."""
    calls, given = [], []

    def call(self, x, y, z, stream, *told_and_arguments):
        calls.append(stream)
        self.launch(*gives((x, y, z), stream, told_and_arguments[:5], told_and_arguments[5:]))

    launcher = type(name, (), {"__call__": call})()
    scratch = {"global_scratch_size": 0, "profile_scratch_size": 0}
    vars(launcher).update({"launch": lambda *arguments: given.append(arguments), **scratch, **more})
    return launcher, calls, given


def launched_directly(launcher):
    """A kernel of this launcher launched as at first, then directly on the other stream."""
    compiled = SimpleNamespace(run=launcher, function="function", packed_metadata=(4, 1, 0))
    direct(compiled, GRID, ONCE[1], REST)(AGAIN[0], AGAIN[1])


def launched_by(launcher):
    """The same by the launcher."""
    stream, addresses = AGAIN
    launcher(*GRID, stream, "function", (4, 1, 0), None, None, None, *addresses, *REST)


@pytest.mark.parametrize("gives", [spread, gathered])
def test_the_c_function_is_given_the_same_without_the_launcher(gives):
    launcher, calls, given = launcher_of(gives, gsan_enabled=False)
    launched_directly(launcher)
    assert calls == [0]  # asked once what it gives; nothing was launched
    launched_by(launcher)
    assert len(given) == 2
    assert given[0] == given[1]


@pytest.mark.parametrize(
    ("gives", "more"),
    [
        (accounted, {}),
        (reordered, {}),
        (spread, {"global_scratch_size": 16}),
        (spread, {"profile_scratch_size": 16}),
        (gathered, {"gsan_enabled": True}),
        (gathered, {"unheard_of": None}),
        (spread, {"name": "HIPLauncher"}),
    ],
)
def test_a_launcher_that_may_do_more_is_called(gives, more):
    launcher, calls, given = launcher_of(gives, **more)
    launched_directly(launcher)
    assert calls[-1] == AGAIN[0]
    launched_by(launcher)
    assert len(given) == 2
    assert given[0] == given[1]


def test_what_is_no_launcher_is_called():
    given = []
    launched_directly(lambda *arguments: given.append(arguments))
    assert given == [(*GRID, AGAIN[0], "function", (4, 1, 0), None, None, None, *AGAIN[1], *REST)]


def test_the_launcher_of_this_triton_is_known(monkeypatch):
    """The launcher itself, of which only the C function is stood in for."""
    given, calls = [], []
    launcher = object.__new__(driver.CudaLauncher)
    launcher.launch = lambda *arguments: given.append(arguments)
    for name in ("global_scratch_size", "profile_scratch_size", "launch_cooperative_grid", "launch_pdl"):
        setattr(launcher, name, 0)
    launcher.global_scratch_align = launcher.profile_scratch_align = launcher.num_ctas = 1
    launcher.gsan_enabled, launcher.arg_annotations, launcher.kernel_signature = False, ["annotation"], b"s"
    monkeypatch.setattr(triton.runtime.driver, "_active", SimpleNamespace())
    launched_by(launcher)
    call = driver.CudaLauncher.__call__

    def counted(self, *arguments):
        calls.append(arguments)
        return call(self, *arguments)

    monkeypatch.setattr(driver.CudaLauncher, "__call__", counted)
    launched_directly(launcher)
    assert len(calls) == 1
    assert given[0] == given[1]
