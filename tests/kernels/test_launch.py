"""What a GPU kernel's launch is chosen to be: a function of width and dtype, for every width."""

import inspect

import pytest

from normkit.kernels.triton import launch
from normkit.kernels.triton.launch import Chip

WIDTHS = [*range(1, 130), *(2**k + d for k in range(8, 19) for d in (-1, 0, 1))]
CHOICES = [launch.row_forward, launch.row_backward]


def runs(how, size, chip):
    """Whether a chip can run it: powers of two, not too many threads, nor too much in registers."""
    powers = how.columns.bit_count() == how.rows.bit_count() == how.warps.bit_count() == 1
    return powers and how.warps * chip.warp <= 1024 and how.rows * how.columns * size <= 128 << 10


@pytest.mark.parametrize("chip", [Chip(32), Chip(64)])
@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("choose", CHOICES)
def test_every_width_has_a_launch_that_a_chip_can_run(choose, size, chip):
    for n in WIDTHS:
        how = choose(n, size, chip)
        if how is not None:
            assert runs(how, size, chip)
            assert n <= how.columns < 2 * n


@pytest.mark.parametrize("choose", CHOICES)
def test_no_launch_depends_on_how_many_rows_there_are(choose):
    assert "rows" not in inspect.signature(choose).parameters


def test_narrow_rows_share_a_program_and_wide_ones_are_cut_up():
    assert launch.row_forward(64, 4, Chip()).rows > 8
    assert launch.row_forward(8192, 4, Chip()) == launch.Launch(rows=1, columns=8192, warps=8)
    assert launch.row_forward(262_144, 4, Chip()) is None


@pytest.mark.parametrize("n", [1, 64, 512, 1024, 4096, 8192])
@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 4096, 100_001, 10**7])
def test_parts_are_whole_steps_few_and_of_many_rows_where_there_are_many(rows, n):
    how = launch.row_backward(n, 4, Chip())
    each = launch.rows_each(rows, how, True)
    parts = -(-rows // each)
    assert each % how.rows == 0
    assert parts * how.warps <= launch.MOST_WARPS
    assert each >= launch.ROWS_OF_A_PART or parts <= launch.FEW_PARTS
    assert launch.rows_each(rows, how, False) == how.rows


def test_partial_sums_are_the_same_on_every_chip():
    for chosen in (launch.rows_each, launch.wide_parts, launch.rows_of_a_part):
        assert "chip" not in inspect.signature(chosen).parameters


@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_no_more_columns_are_missing_from_a_row_s_last_slab_than_smaller_ones_would_save(itemsize):
    for n in (8193, 9000, 12289, 16400, 24577, 70001, 262_145):
        shared = launch.shared_rows("backward", 1000, n, itemsize, False, Chip(processors=132))
        assert shared.columns * shared.slabs < 1.34 * n
    whole = launch.SHARING["backward", itemsize]
    for n in (65536, 262_144):
        assert launch.shared_rows("backward", 1000, n, itemsize, False, Chip()).warps == whole.warps


def test_a_slab_is_asked_for_in_one_instruction_where_the_chip_has_it():
    for architecture, has in (("sm_80", False), ("sm_90", True), ("sm_100", True), ("gfx942", False)):
        chip = Chip(processors=132, architecture=architecture)
        assert launch.shared_rows("forward", 10, 65536, 2, False, chip).prefetch is has


def test_programs_share_rows_that_are_summed_twice_sooner_where_they_can_wait():
    waits = Chip(processors=132)
    for itemsize, most in ((2, 16384), (4, 8192)):
        assert launch.row_forward(most, 4, waits, itemsize, True) is not None
        assert launch.row_forward(most + 1, 4, waits, itemsize, True) is None
        assert launch.row_forward(most + 16, 4, waits, itemsize, False) is not None
        assert launch.row_forward(most + 1, 4, Chip(), itemsize, True) is not None
    assert launch.row_forward(8193, 4, waits, 2, True) is None
    assert launch.row_forward(16385, 4, waits, 2, False) is None
    assert launch.row_forward(16385, 4, Chip(), 2, False) is not None


PASSES = ("forward", "backward")


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("processors", [16, 108, 132, 160])
@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("which", PASSES)
def test_programs_that_wait_for_each_other_all_run(which, itemsize, processors, centred):
    for n in (8193, 16400, 32768, 70001, 262_144, 4_000_000):
        for rows in (1, 3, 64, 10**6):
            shared = launch.shared_rows(which, rows, n, itemsize, centred, Chip(processors=processors))
            programs = shared.groups * shared.slabs
            at_a_time = -(-programs // processors)
            of_a_warp = -(-32 * shared.registers // 256) * 256  # as they are given out
            assert at_a_time <= 16
            assert at_a_time * shared.warps <= 48
            assert at_a_time * shared.warps * of_a_warp <= 64 << 10
            assert programs <= rows * shared.slabs


@pytest.mark.parametrize("which", PASSES)
def test_where_programs_may_not_all_run_none_waits(which):
    assert launch.shared_rows(which, 100, 16400, 4, True, Chip()).groups == 0
    assert launch.shared_rows(which, 100, 10**7, 4, True, Chip(processors=1)).groups == 0


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("chip", [Chip(32), Chip(64)])
@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("which", PASSES)
def test_slabs_are_all_of_a_row_and_their_words_are_read_by_a_thread_each(which, itemsize, chip, centred):
    for n in (8193, 16400, 262_144, 10**6):
        shared = launch.shared_rows(which, 10, n, itemsize, centred, chip)
        assert (shared.slabs - 1) * shared.columns < n <= shared.slabs * shared.columns
        assert shared.slabs <= shared.most_slabs
        assert shared.warps * chip.warp <= shared.most_slabs
        assert runs(launch.Launch(1, shared.columns, shared.warps), itemsize, chip)
        assert shared.most_slabs.bit_count() == 1


@pytest.mark.parametrize("itemsize", [2, 4])
def test_what_is_on_its_way_fits_every_cuda_chip(itemsize):
    for n in WIDTHS:
        how = launch.row_backward(n, 4, Chip(processors=132))
        if how is not None:
            stages = launch.stages(how, itemsize, Chip(processors=132))
            assert stages == 1 or stages * 2 * how.rows * how.columns * itemsize <= 99 << 10
            assert launch.stages(how, itemsize, Chip()) == 1


def test_rows_are_read_ahead_where_a_program_is_alone():
    alone = launch.row_forward(16384, 4, Chip(processors=132))
    assert launch.reads_ahead(alone, True, 2, Chip(processors=132))
    assert not launch.reads_ahead(alone, True, 2, Chip())
    assert not launch.reads_ahead(launch.row_forward(4096, 4, Chip()), True, 2, Chip(processors=132))
    assert launch.rows_ahead(1000, alone, Chip(processors=132)) == 8


@pytest.mark.parametrize("planar", [True, False])
@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_every_batch_norm_has_a_launch_that_a_chip_can_run(itemsize, planar):
    for outer in (1, 7, 1024, 10**6):
        for inner in (1, 49, 64, 3136, 10**5):
            how = launch.channels(outer, inner, planar, itemsize, Chip())
            assert runs(how, max(4, itemsize), Chip())
            each = launch.rows_of_a_part(outer, 64, planar, how)
            assert each % how.rows == 0
            assert -(-outer // each) <= launch.CHANNEL_WARPS[planar]


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
