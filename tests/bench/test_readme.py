"""README's table and plot are those of the newest run, and the page of the bench is right about it."""

import dataclasses
import importlib.util
import re
import sys
from pathlib import Path

from normkit.bench import cases, check, drift, timing
from normkit.bench.cases import Case
from normkit.bench.contenders import PEERS
from normkit.bench.results import save

from ..process import ROOT, python
from .conftest import ROWS, make_bench, make_row

BENCHMARKS = ROOT / "benchmarks"


def test_readme_is_in_step():
    python("benchmarks/readme.py", "--check")


def load_script(monkeypatch):
    spec = importlib.util.spec_from_file_location("readme", BENCHMARKS / "readme.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "readme", module)
    spec.loader.exec_module(module)
    return module


def test_the_check_sees_a_difference(tmp_path, monkeypatch, capsys):
    script = load_script(monkeypatch)
    saved, _ = script.runs()[0]
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / saved.name).write_text(saved.read_text())
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{script.BEGIN}\nold\n{script.END}\nafter\n")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    assert script.main(check=True) == 1
    assert capsys.readouterr().err.count("is not what") == 2
    assert script.main(check=False) == 0
    assert script.main(check=True) == 0
    text = readme.read_text()
    assert text.startswith("before\n<!--")
    assert text.endswith("-->\nafter\n")
    readme.write_text(text.replace("RMSNorm", "RMS norm", 1))
    assert script.main(check=True) == 1


def test_every_other_machine_has_a_line(tmp_path, monkeypatch):
    script = load_script(monkeypatch)
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    slower = [make_row(Case("rms_norm", (512, 4096), "forward"), ours=5e-3, theirs=4e-3)]
    for name, day, threads, rows in (
        ("a", 1, 8, ROWS),
        ("b", 2, 8, slower),
        ("c", 3, 2, slower),
        ("d", 4, 2, ROWS),
    ):
        bench = make_bench(rows)
        machine = dataclasses.replace(bench.machine, threads=threads)
        created = f"2026-01-0{day}T00:00:00+00:00"
        save(dataclasses.replace(bench, machine=machine, created=created), results / f"{name}.json")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    (path, bench), *others = script.runs()
    assert path.stem == "d"
    text = script.block(path, path.with_suffix(".svg"), bench, others)
    line = "| [a <processor> & more, 8 threads](benchmarks/results/b.json) | 2026-01-02 | 0.80x | 0.80x | 1 |"
    assert line in text
    assert "results/a.json" not in text
    assert "results/c.json" not in text
    assert "other machines" not in script.block(path, path.with_suffix(".svg"), bench, [])


def test_the_plot_is_small_and_stands_alone():
    for path in (BENCHMARKS / "results").glob("*.svg"):
        text = path.read_text()
        assert len(text) < 60_000
        assert "prefers-color-scheme" in text
        assert not re.search(r"<image|@import|url\((?!#)", text)
        missing = set(re.findall(r"var\(--([a-z]+)\)", text)) - set(re.findall(r"--([a-z]+):", text))
        assert missing == set()


def test_the_page_of_the_bench_states_what_the_code_does():
    page = " ".join(Path(ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").split())
    for peer in PEERS:
        assert f"`{peer}`" in page
    assert f"differs by more than {drift.MOST:.0%}" in page
    assert f"takes no more than {timing.BUDGET_SECONDS:g} s" in page
    for name, row in (("output", "output"), ("grad_input", "gradient of the input")):
        assert f"| {row} | {check._OWN[name]:g} + " in page
    for shape in cases.GROUPS["cnn"]:
        assert f"({','.join(map(str, shape))})" in page
