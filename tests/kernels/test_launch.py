"""What a GPU kernel's launch is chosen to be: a function of width and dtype, for every width."""

import inspect
from itertools import pairwise

import pytest

from normkit.kernels.triton import launch
from normkit.kernels.triton.launch import Chip

WIDTHS = [*range(1, 130), *(2**k + d for k in range(8, 19) for d in (-1, 0, 1))]
CHOICES = [launch.row_forward, launch.row_backward]


def runs(how, size, chip):
    """Whether a chip can run it: powers of two, not too many threads, nor too much in registers."""
    powers = how.columns.bit_count() == how.rows.bit_count() == how.warps.bit_count() == 1
    return powers and how.warps * chip.warp <= 1024 and how.rows * how.columns * size <= 64 << 10


@pytest.mark.parametrize("chip", [Chip(32), Chip(64)])
@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("choose", CHOICES)
def test_every_width_has_a_launch_that_a_chip_can_run(choose, size, chip):
    for n in WIDTHS:
        how = choose(n, size, chip)
        if how is not None:
            assert runs(how, size, chip)
            assert n <= how.columns < 2 * n
    assert runs(launch.row_slab(size, chip), size, chip)
    assert runs(launch.row_tile(size, chip), size, chip)


@pytest.mark.parametrize("choose", CHOICES)
def test_no_launch_depends_on_how_many_rows_there_are(choose):
    assert list(inspect.signature(choose).parameters) == ["n", "size", "chip"]


def test_narrow_rows_share_a_program_and_wide_ones_are_cut_up():
    assert launch.row_forward(64, 4, Chip()).rows > 8
    assert launch.row_forward(8192, 4, Chip()) == launch.Launch(rows=1, columns=8192, warps=16)
    assert launch.row_forward(262_144, 4, Chip()) is None


def test_parts_are_whole_steps_and_few():
    for n in (1, 64, 4096, 8192):
        how = launch.row_backward(n, 4, Chip())
        for rows in (1, 2, 63, 64, 65, 4096, 100_001, 10**7):
            each = launch.rows_each(rows, how, True)
            assert each % how.rows == 0
            assert -(-rows // each) <= launch.MOST_PARTS
            assert launch.rows_each(rows, how, False) == how.rows


@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("l2_bytes", [4 << 20, 50 << 20, 256 << 20])
def test_wide_rows_are_taken_together_by_whole_parts_that_a_cache_holds(itemsize, l2_bytes):
    chip = Chip(l2_bytes=l2_bytes)
    for n in (8193, 65_536, 262_144, 10**7):
        each = launch.wide_rows_each(n, itemsize)
        together = launch.rows_together(2 * n * itemsize, each, chip)
        assert each % launch.TILE_ROWS == 0
        assert together % each == 0
        assert together == each or 2 * n * itemsize * together <= l2_bytes


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 64, 1000])
def test_each_row_is_measured_in_one_launch_and_finished_in_the_next(rows):
    turns = launch.turns(rows, 8)
    measured = [row for _, middle, last in turns for row in range(middle, last)]
    finished = [row for first, middle, _ in turns for row in range(first, middle)]
    assert measured == finished == list(range(rows))
    for (_, middle, last), (first, after, _) in pairwise(turns):
        assert (first, after) == (middle, last)


def test_what_was_measured_on_a_chip_is_launched_there_alone(monkeypatch):
    monkeypatch.setitem(launch.TUNED, ("sm_90", "forward", 4, 4096), (2, 8))
    by_formula = launch.row_forward(4000, 4, Chip())
    assert launch.row_forward(4000, 4, Chip(architecture="sm_90")) == launch.Launch(2, 4096, 8)
    assert launch.row_forward(4000, 4, Chip(architecture="sm_80")) == by_formula
    assert launch.row_backward(4000, 4, Chip(architecture="sm_90")) == launch.row_backward(4000, 4, Chip())
    assert launch.row_forward(5000, 4, Chip(architecture="sm_90")) == launch.row_forward(5000, 4, Chip())


def test_the_table_of_what_was_measured_holds_launches_that_a_chip_can_run():
    for (architecture, which, size, columns), (rows, warps) in launch.TUNED.items():
        assert which in ("forward", "backward")
        chip = Chip(64 if architecture.startswith("gfx9") else 32)
        assert runs(launch.Launch(rows, columns, warps), size, chip)


@pytest.mark.parametrize("chip", [Chip(32), Chip(64)])
def test_what_is_tried_instead_can_be_run_too(chip):
    for n in (64, 1024, 16384):
        how = launch.row_forward(n, 4, chip)
        tried = launch.neighbours(how, chip)
        assert how not in tried
        assert len(set(tried)) == len(tried) >= 2
        assert all(other.columns == how.columns and other.warps * chip.warp <= 1024 for other in tried)
