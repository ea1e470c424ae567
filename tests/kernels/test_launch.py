"""What a GPU kernel's launch is chosen to be: a function of width and dtype, for every width."""

import inspect

import pytest

from normkit.kernels.triton import launch
from normkit.kernels.triton.launch import Chip

WIDTHS = [*range(1, 130), *(2**k + d for k in range(8, 19) for d in (-1, 0, 1))]
CHOICES = [launch.row_forward, launch.row_backward, launch.row_sums]


@pytest.mark.parametrize("chip", [Chip(32), Chip(64)])
@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("choose", CHOICES)
def test_every_width_has_a_launch_that_a_chip_can_run(choose, size, chip):
    for n in WIDTHS:
        how = choose(n, size, chip)
        assert how.columns.bit_count() == how.rows.bit_count() == how.warps.bit_count() == 1
        assert how.warps * chip.warp <= 1024
        assert how.rows * how.columns * size <= 64 << 10
        assert not how.held or choose is launch.row_sums or n <= how.columns < 2 * n


@pytest.mark.parametrize("choose", CHOICES)
def test_no_launch_depends_on_how_many_rows_there_are(choose):
    assert list(inspect.signature(choose).parameters) == ["n", "size", "chip"]


def test_narrow_rows_share_a_program_and_wide_ones_go_in_steps():
    assert launch.row_forward(64, 4, Chip()).rows > 8
    assert launch.row_forward(8192, 4, Chip()) == launch.Launch(rows=1, columns=8192, warps=16)
    assert not launch.row_forward(262_144, 4, Chip()).held


def test_parts_are_whole_steps_and_few():
    for n in (1, 64, 4096, 100_000):
        how = launch.row_backward(n, 4, Chip())
        for rows in (1, 2, 63, 64, 65, 4096, 100_001, 10**7):
            each = launch.rows_each(rows, how, True)
            assert each % how.rows == 0
            assert -(-rows // each) <= launch.MOST_PARTS
            assert launch.rows_each(rows, how, False) == how.rows
