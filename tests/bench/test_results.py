"""Saved and loaded, a run is the same; anything else is refused."""

import json

import pytest

from normkit.bench import results

from .conftest import make_bench


def test_there_and_back(tmp_path, bench):
    path = tmp_path / "bench.json"
    results.save(bench, path)
    assert results.load(path) == bench
    assert [p.name for p in tmp_path.iterdir()] == ["bench.json"]


def test_a_row_a_line(bench):
    lines = bench.to_json().splitlines()
    rows = [line for line in lines if line.startswith('{"case"')]
    assert len(rows) == len(bench.rows)
    assert max(map(len, rows)) < 2500


def test_the_derived_figures():
    row = make_bench().rows[0]
    assert row.floor_seconds == 1e-3  # the faster of two copies
    assert row.share_of_floor == pytest.approx(0.5)
    assert row.ratio("pytorch") == pytest.approx(2)
    assert row.ratio("inductor") is None
    assert row.best_peer == "pytorch"
    assert row.counted_bytes == 2 * 512 * 4096 * 4
    assert make_bench().rows[4].floor_seconds is None


def replaced(content, place, value):
    *path, last = place
    for step in path:
        content = content[step]
    content[last] = value


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("rows",), []),
        (("rows",), 3),
        (("rows", 0, "case", "op"), "group_norm"),
        (("rows", 0, "case", "shape"), []),
        (("rows", 0, "case", "shape", 0), 1.5),
        (("rows", 0, "case", "shape", 0), True),
        (("rows", 0, "contenders"), {}),
        (("rows", 0, "contenders", "normkit", "warm", "median"), "fast"),
        (("rows", 0, "contenders", "normkit", "warm", "median"), 0.0),
        (("rows", 0, "contenders", "normkit", "warm", "median"), float("nan")),
        (("rows", 0, "contenders", "numpy"), None),
        (("rows", 0, "drifts"), []),
        (("rows", 0, "floor"), {}),
        (("machine", "threads"), None),
        (("machine",), []),
        (("more",), 1),
        (("schema",), "normkit-bench/1"),
    ],
    ids=str,
)
def test_damage_is_found(tmp_path, bench, place, value):
    content = json.loads(bench.to_json())
    replaced(content, place, value)
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"damaged or incomplete|schema must be"):
        results.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "[" * 100_000, "3"])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"not JSON|not a file written by"):
        results.load(path)
