"""What the default launches of a chip spill, compiled with none present."""

import json

from tests.process import python


def assert_no_default_launch_spills(target, cache):
    """Of all that `tests.kernels.triton_compiled` compiles."""
    script = ("-W", "ignore", "-m", "tests.kernels.triton_compiled", target)
    told = python(*script, timeout=900, TRITON_CACHE_DIR=str(cache))
    report = json.loads(told.stdout)
    assert report["compiled"] > 320
    assert report["registers"] > 32
    assert [spill for spill in report["spills"] if not is_of_a_division(spill)] == []


def is_of_a_division(spill):
    """What `moments` of planes in float64 keep in memory while a subroutine divides, twice a program."""
    return spill.startswith("moments, torch.float64") and spill.endswith(" 8 bytes spilled")
