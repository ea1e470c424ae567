"""`normkit bench`: only right results are timed, and everything measured is kept."""

import json

import pytest
import torch
from rich.console import Console

from normkit.bench import cases, measure, table

from ..process import python

SMALL = [
    cases.Case("layer_norm", (8, 32), backward=True),
    cases.Case("rms_norm", (8, 32), backward=False, dtype="bfloat16"),
    cases.Case("batch_norm", (4, 6, 5, 5), backward=True, channels_last=True),
]


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_right_contenders_are_timed(case):
    result = measure.measure(case, rounds=2)
    assert result.wrong == {}
    assert set(result.times) == {"normkit", "PyTorch"}
    for timing in (result.copy, *result.times.values()):
        assert 0 < timing.p10 <= timing.median <= timing.p90
    assert result.ratio("normkit", to="PyTorch") == pytest.approx(1 / result.ratio("PyTorch", to="normkit"))


def test_a_wrong_contender_is_not_timed(monkeypatch):
    def off(case):
        return lambda x, w, b: torch.nn.functional.layer_norm(x, (case.features,), w, b) * 1.01

    monkeypatch.setitem(cases.CONTENDERS, "PyTorch", off)
    result = measure.measure(SMALL[0], rounds=1)
    assert set(result.times) == {"normkit"}
    assert result.wrong["PyTorch"] > 1
    console = Console(width=table.WIDTH, record=True, file=None)
    with console.capture() as shown:
        console.print(table.to_table([result]))
    assert "wrong" in shown.get()


def test_a_result_that_is_not_a_number_is_wrong(monkeypatch):
    def broken(case):
        return lambda x, w, b: x * w * torch.nan

    monkeypatch.setitem(cases.CONTENDERS, "PyTorch", broken)
    result = measure.measure(cases.Case("rms_norm", (8, 32), backward=False), rounds=1)
    assert set(result.wrong) == {"PyTorch"}


def test_bytes_are_counted():
    assert cases.Case("rms_norm", (4, 8), backward=False).least_bytes == 2 * 4 * 8 * 4
    assert cases.Case("rms_norm", (4, 8), backward=True, dtype="bfloat16").least_bytes == 5 * 4 * 8 * 2


def test_the_command(tmp_path):
    saved = tmp_path / "bench.json"
    done = python("-m", "normkit.cli", "bench", "--rounds", "1", "--json", str(saved))
    assert "512x4096" in done.stdout
    kept = json.loads(saved.read_text())
    assert len(kept["results"]) == len(cases.CASES)
    assert kept["machine"]["torch"] == torch.__version__
    assert all("normkit" in result["times"] for result in kept["results"])
