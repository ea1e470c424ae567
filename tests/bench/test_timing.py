"""Turns are fair, and figures are those of the samples. No test here looks at how fast anything is."""

import gc
import itertools
import time

import pytest

from normkit.bench import drift, timing


def recorder(log, name, seconds=0.0):
    def call():
        log.append(name)
        time.sleep(seconds)

    return call


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 1e-6)
    monkeypatch.setattr(timing, "SETTLING_CALLS", 0)


def test_each_is_sampled_once_a_round_behind_the_meter(short):
    log = []
    calls = {name: recorder(log, name, 1e-4) for name in "abc"}
    samples, meter = timing.take_turns(calls, recorder(log, "m", 1e-4), rounds=12)
    assert {name: len(one.seconds) for name, one in samples.items()} == dict.fromkeys("abc", 12)
    assert len(meter) == 3 * 12 + 1
    turns = "".join(log[-12 * 3 * 4 - 2 : -2])  # two calls of the meter, two of the contender
    assert all(turns[i : i + 2] == "mm" and turns[i + 2] == turns[i + 3] for i in range(0, len(turns), 4))
    order = turns.replace("m", "")[::2]
    assert all(sorted(order[i : i + 3]) == list("abc") for i in range(0, 36, 3))
    assert len({order[i : i + 3] for i in range(0, 36, 3)}) > 2


def test_a_slow_one_sits_rounds_out_evenly(monkeypatch):
    monkeypatch.setattr(timing, "BUDGET_SECONDS", 0.0)
    samples = timing.Samples(lambda: None)
    assert samples.affordable(31, fewest=5) == 5
    assert samples.affordable(3, fewest=5) == 3
    due = [turn for turn in range(31) if timing._is_due(turn, 5, 31)]
    assert len(due) == 5
    gaps = {after - before for before, after in itertools.pairwise(due)}
    assert gaps <= {6, 7}


def test_a_sample_lasts():
    calls = []
    samples = timing.Samples(lambda: calls.append(1))
    assert samples.repeats > 100
    before = len(calls)
    samples.take()
    assert len(calls) - before == 2 * samples.repeats


@pytest.mark.parametrize(("seconds", "untimed"), [(1e-5, 100), (1e-4, 50), (1e-3, 20), (0.1, 1)])
def test_a_cache_settles_before_a_sample(seconds, untimed):
    called = []
    samples = timing.Samples(lambda: None, clock=lambda call, repeats: called.append(repeats) or seconds)
    samples.take()
    assert called[-2:] == [untimed, max(1, round(1e-3 / seconds))]
    assert samples.cost == pytest.approx(sum(called[-2:]) * seconds)


def test_garbage_is_not_collected_meanwhile(short):
    seen = []
    timing.take_turns({"a": lambda: seen.append(gc.isenabled())}, lambda: None, rounds=2)
    assert not any(seen[-4:])
    assert gc.isenabled()


def test_the_figures_are_those_of_the_samples():
    samples = timing.Samples(lambda: None)
    samples.seconds = [float(n) for n in range(11, 0, -1)]
    samples.faults, samples.repeats = [2] * 8 + [250] * 3, 4  # the heap grew in some
    assert samples.timing() == timing.Timing(6.0, 2.0, 10.0, samples=11, faults=0.5)


def test_drift_compares_halves():
    assert drift.drift([1.0, 1.0, 1.0, 1.0]) == 0
    assert drift.drift([1.0, 9.0, 1.0, 1.1, 1.1, 1.1]) == pytest.approx(0.1)
    assert drift.drift([1.1, 1.1, 1.0, 1.0]) == pytest.approx(0.1)


def test_the_speed_of_a_small_case_is_that_of_a_larger_copy():
    import torch

    small, large = torch.zeros(4), torch.zeros(2**18)
    target = torch.ones(4)
    drift.speedometer(small, target)()
    assert torch.equal(target, torch.ones(4))
    target = torch.ones(2**18)
    drift.speedometer(large, target)()
    assert torch.equal(target, large)


def test_a_recorded_graph_s_time_is_shared_among_its_calls():
    class Graph:
        calls = 4

        def __call__(self):
            pass

    samples = timing.Samples(Graph(), clock=lambda call, repeats: timing.SAMPLE_SECONDS / 2)
    assert samples.repeats == samples.untimed == 2  # graphs, not calls, fill a sample
    samples.take()
    assert samples.seconds == [timing.SAMPLE_SECONDS / 8]
