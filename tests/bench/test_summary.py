"""The figures speed is promised in, and how they are shown."""

import pytest
from rich.console import Console

from normkit.bench import table
from normkit.bench.cases import Case
from normkit.bench.results import Entry
from normkit.bench.summary import summarise

from .conftest import make_bench, make_row, timing


def shown(bench, width=table.WIDTH):
    console = Console(width=width)
    with console.capture() as text:
        table.print_bench(console, bench, summarise(bench))
    return text.get()


def test_means_leave_out_what_is_wrong_or_unsteady(bench):
    found = summarise(bench)
    assert found.against["pytorch"].cases == 4
    assert found.against["pytorch"].value == pytest.approx((2 * 0.9 * 2 * 2) ** 0.25)
    assert set(found.against) == {"pytorch"}
    assert found.best == found.against["pytorch"]
    assert [row.case.op for row in found.refused] == ["rms_norm"]
    assert [row.case.op for row in found.wrong] == ["batch_norm_training"]


def test_the_best_contender_counts():
    row = make_row(
        Case("rms_norm", (4, 4), "forward"), ours=2.0, theirs=3.0, jax=Entry(timing(1.0), None, 0.1)
    )
    found = summarise(make_bench([row]))
    assert found.best.value == pytest.approx(0.5)
    assert found.behind == (row,)


@pytest.mark.parametrize(("theirs", "behind"), [(0.96, False), (0.94, True)])
def test_who_is_behind(theirs, behind):
    row = make_row(Case("rms_norm", (4, 4), "forward"), ours=1.0, theirs=theirs)
    assert bool(summarise(make_bench([row])).behind) is behind


def test_shares_of_the_floor_are_those_of_large_cases(bench):
    (share,) = summarise(bench).shares
    assert (share.group, share.dtype, share.cases) == ("row norms, forward", "float32", 2)
    assert share.lowest == pytest.approx(0.5)
    assert share.lowest_case.op == "rms_norm"
    assert share.median == pytest.approx(0.7)


def test_the_table_says_it_all(bench):
    text = shown(bench)
    flat = " ".join(text.split())
    assert "2.00 [1.80, 2.40] ms 10.0 ms 8.4 50% 4.00 [3.60, 4.80] ms 2.00x wrong 7.00x - -" in flat
    assert "512x4096 bfloat16 unsteady 12%" in flat
    assert "wrong 7.00x - - -" in flat
    assert "1.64x as fast as PyTorch, geometric mean of 4 cases" in flat
    assert "1 slower than 0.95 of it: 0.90x of PyTorch: float32 layer_norm 512x4096 forward" in flat
    assert "row norms, forward, float32, over 1 MB: lowest 50% of the floor (rms_norm 512x4096)" in flat
    assert "not counted above: 1 case: by 12% in the steadiest of 3 attempts" in flat
    assert "normkit is WRONG, by 7 of what passes: bfloat16 batch_norm_training" in flat
    assert "Incomplete" not in flat
    assert max(map(len, text.splitlines())) <= table.WIDTH


def test_a_narrow_terminal_gets_medians(bench):
    flat = " ".join(shown(bench, width=120).split())
    assert "2.00 ms 10.0 ms 8.4 50% 4.00 ms 2.00x" in flat


def test_an_interrupted_run_says_so():
    assert "Incomplete: 6 cases so far." in shown(make_bench(complete=False))


def test_no_contender_at_all():
    rows = [make_row(Case("rms_norm", (4, 4), "forward"), pytorch=Entry(unavailable="absent"))]
    found = summarise(make_bench(rows))
    assert (found.best, found.behind, found.against) == (None, (), {})
    assert "rms" in shown(make_bench(rows)).lower()
