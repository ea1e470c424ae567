"""One case: only right results are timed, and only on a steady machine do they count."""

import dataclasses

import pytest
import torch

from normkit.bench import measure, memory, run, timing
from normkit.bench.cases import Case
from normkit.bench.contenders import eager
from normkit.bench.drift import ATTEMPTS
from normkit.bench.results import Settings

from .conftest import MACHINE, make_bench

SMALL = Case("layer_norm", (8, 32), "forward+backward")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 1e-5)
    monkeypatch.setattr(measure, "drift", lambda seconds: 0.01)


def small_row(case=SMALL, peers=("pytorch",)):
    return measure.measure(case, peers, 3, MACHINE)


@pytest.mark.parametrize(
    "case",
    [
        SMALL,
        Case("rms_norm", (8, 32), "backward", "bfloat16"),
        Case("batch_norm_training", (4, 6, 5, 5), "forward+backward", channels_last=True),
        Case("batch_norm_inference", (4, 6), "forward"),
    ],
    ids=str,
)
def test_a_case(case):
    row = small_row(case)
    assert row.steady
    for entry in row.contenders.values():
        assert entry.error <= 1
        assert 0 < entry.warm.p10 <= entry.warm.median <= entry.warm.p90
        assert (entry.warm.samples, entry.fresh) == (3, None)
    assert row.counted_bytes == (row.reads + row.writes) * case.tensor_bytes
    assert row.floor_seconds > 0


def test_large_outputs_are_timed_fresh_too():
    memory.keep_memory()
    case = Case("rms_norm", (256, 1024), "forward")
    row = small_row(case, ("pytorch", "onnxruntime"))
    pages = case.tensor_bytes / 4096
    for name in ("normkit", "pytorch"):
        entry = row.contenders[name]
        assert entry.warm.faults < pages / 10
        assert entry.fresh.faults >= pages
    assert row.contenders["onnxruntime"].fresh is None


def test_all_large_outputs_lie_in_one_place(monkeypatch):
    places = set()

    def steadiest(calls, *arguments):
        places.update(calls[name]().data_ptr() for name in ("normkit", "pytorch", "normkit"))
        return measure_steadiest(calls, *arguments)

    measure_steadiest = measure.steadiest
    monkeypatch.setattr(measure, "steadiest", steadiest)
    small_row(Case("layer_norm", (256, 1024), "forward"))
    assert len(places) == 1


def test_a_refused_case_is_not_timed_fresh(monkeypatch):
    drifting(monkeypatch, *[0.3] * ATTEMPTS)
    row = small_row(Case("rms_norm", (256, 1024), "forward"))
    assert row.contenders["normkit"].warm is not None
    assert row.contenders["normkit"].fresh is None


def spoil(monkeypatch, factor):
    def off(*arguments):
        return torch.layer_norm(*arguments[:4]) * factor

    monkeypatch.setattr(eager, "norm", lambda case, operands: off)


@pytest.mark.parametrize("factor", [1.01, torch.nan])
def test_a_wrong_contender_is_not_timed(monkeypatch, factor):
    spoil(monkeypatch, factor)
    row = small_row()
    assert row.contenders["pytorch"].warm is None
    assert row.contenders["pytorch"].error > 1
    assert row.ratio("pytorch") is None
    assert row.contenders["normkit"].warm is not None


def test_who_cannot_take_part_says_why():
    row = small_row(peers=("onnxruntime",))
    assert row.contenders["onnxruntime"].unavailable == "inference only"
    assert row.best_peer is None


def drifting(monkeypatch, *drifts):
    taken = iter(drifts)
    monkeypatch.setattr(measure, "drift", lambda seconds: next(taken))


def test_a_drifting_machine_is_given_more_chances(monkeypatch):
    drifting(monkeypatch, 0.2, 0.06, 0.05, 0.0)
    row = small_row()
    assert (row.drifts, row.steady) == ((0.2, 0.06, 0.05), True)


def test_and_refused_in_the_end(monkeypatch):
    drifting(monkeypatch, *[0.3, 0.1, 0.2, 0.4, 0.5][:ATTEMPTS])
    row = small_row()
    assert (len(row.drifts), row.steady) == (ATTEMPTS, False)


def test_a_run_saves_after_each_case_and_keeps_what_there_is(monkeypatch):
    row = small_row()
    measured = []

    def pretend(case, peers, rounds, machine):
        measured.append(case)
        return dataclasses.replace(row, case=case)

    monkeypatch.setattr(run, "measure", pretend)
    other = Case("rms_norm", (8, 32), "forward")
    seen, started = [], []
    bench = run.run(
        [SMALL, other],
        MACHINE,
        Settings(3, ("pytorch",)),
        kept=[row],
        started=lambda number, case: started.append((number, case)),
        saved=lambda bench: seen.append((len(bench.rows), bench.complete)),
    )
    assert measured == [other]
    assert started == [(0, SMALL), (1, other)]
    assert seen == [(2, True)]
    assert [row.case for row in bench.rows] == [SMALL, other]


def test_rows_are_kept_from_the_same_machine_and_settings_only():
    earlier = make_bench()
    kept = run.kept_rows(earlier, earlier.machine, earlier.settings)
    assert kept == tuple(row for row in earlier.rows if row.steady)
    assert len(kept) < len(earlier.rows)
    with pytest.raises(ValueError, match="that run was on"):
        run.kept_rows(earlier, dataclasses.replace(MACHINE, torch="2.14"), earlier.settings)
    with pytest.raises(ValueError, match="that run was made with"):
        run.kept_rows(earlier, MACHINE, Settings(5, ("pytorch",)))
