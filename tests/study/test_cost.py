import dataclasses

import pytest
import torch

from normkit.study import cost


def test_cases_have_the_same_number_of_elements():
    cases = cost.cases(2**17)
    sizes = {torch.Size(case.shape).numel() for case in cases}
    assert sizes == {2**17, 1024}
    assert len(cases) == len(set(cases)) == 12


def test_least_bytes_counts_reads_and_writes():
    assert cost.least_bytes(100, backward=False) == 2 * 4 * 100
    assert cost.least_bytes(100, backward=True) == 5 * 4 * 100


def test_every_case_is_right_and_timed_next_to_a_copy():
    steps = []
    costs = cost.measure(2**16, 2, lambda done, total: steps.append((done, total)))
    assert steps == [(0, 2), (1, 2), (2, 2)]
    assert len(costs) == 24
    for one in costs:
        assert 0 < one.max_error <= 1, one
        assert len(one.seconds) == len(one.copy_seconds) == 2
        assert min(one.seconds + one.copy_seconds) > 0


@pytest.mark.parametrize("spoil", [lambda y: y * 1.001, lambda y: y + 1e-3, lambda y: y * float("nan")])
def test_a_wrong_layer_is_not_timed(monkeypatch, spoil):
    right = cost.Case.layer

    class Wrong(torch.nn.Module):
        def __init__(self, case):
            super().__init__()
            self.inner = right(case)

        def forward(self, x):
            return spoil(self.inner(x))

    monkeypatch.setattr(cost.Case, "layer", lambda case: Wrong(case))
    costs = cost.measure(2**16, 1, lambda *_: None)
    assert all(one.max_error > 1 for one in costs)
    assert all(one.seconds == one.copy_seconds == () for one in costs)


def test_a_case_is_hashable_and_frozen():
    case = cost.Case("rms", "torch", (16, 64))
    assert case.features == 64
    with pytest.raises(dataclasses.FrozenInstanceError):
        case.norm = "layer"
