"""`normkit bench` as a user runs it."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

from normkit import cli
from normkit.bench import results, run

from .conftest import make_bench

TINY = ("bench", "--shape", "8x32", "--dtype", "float32", "--rounds", "2", "--contender", "pytorch")


@pytest.fixture
def saved(tmp_path, bench, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results.save(bench, tmp_path / "saved.json")
    return tmp_path / "saved.json"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "normkit.cli", *TINY, "--json", "out.json"]
    return folder, subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_command(tiny):
    folder, done = tiny
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == "1/4 float32 rms_norm 8x32 forward"
    assert done.stdout.splitlines()[-1] == "The report: open normkit-bench.html"
    assert (folder / "normkit-bench.html").stat().st_size > 10_000
    content = json.loads((folder / "out.json").read_text())
    assert content["schema"] == "normkit-bench/3"
    assert content["complete"]
    assert content["machine"]["torch"] == torch.__version__
    assert content["settings"] == {"rounds": 2, "peers": ["pytorch"]}
    assert [row["case"]["op"] for row in content["rows"]] == ["rms_norm"] * 2 + ["layer_norm"] * 2
    assert all(row["contenders"]["normkit"]["warm"]["median"] > 0 for row in content["rows"])


def test_it_redraws_without_measuring(tiny, tmp_path, monkeypatch, capsys):
    folder, done = tiny
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "measure", None)
    assert cli.main(["bench", "--from", str(folder / "out.json"), "--json", "again.json"]) == 0
    assert capsys.readouterr().out == done.stdout
    assert (tmp_path / "again.json").read_text() == (folder / "out.json").read_text()
    assert (tmp_path / "normkit-bench.html").read_text() == (folder / "normkit-bench.html").read_text()


def interrupted_at(number, monkeypatch):
    real, cases = run.measure, []

    def measure(case, *others):
        cases.append(case)
        if len(cases) > number:
            raise KeyboardInterrupt
        return real(case, *others)

    monkeypatch.setattr(run, "measure", measure)
    return cases


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("normkit.bench.measure.drift", lambda seconds: 0.0)
    with monkeypatch.context() as patch:
        interrupted_at(3, patch)
        assert cli.main([*TINY, "--json", "out.json"]) == 130
    assert "interrupted; --resume goes on from out.json" in capsys.readouterr().err
    assert not json.loads((tmp_path / "out.json").read_text())["complete"]
    left = interrupted_at(9, monkeypatch)
    assert cli.main([*TINY, "--json", "out.json", "--resume"]) == 0
    assert len(left) == 1
    assert json.loads((tmp_path / "out.json").read_text())["complete"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "must be a whole number of 1 or more"),
        (["--threads", "two"], "must be a whole number of 1 or more"),
        (["--op", "group_norm"], "invalid choice: 'group_norm'"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
        (["--direction", "sideways"], "invalid choice: 'sideways'"),
        (["--contender", "numpy"], "invalid choice: 'numpy'"),
        (["--shape", "big"], "must be sizes such as 512x4096, or one of single"),
        (["--shape", "1x7", "--op", "batch_norm_training"], "leave nothing to measure"),
        (["--full", "--shape", "8x32"], "--full has its own shapes"),
        (["--resume"], "--resume needs --json FILE"),
        (["--json", "absent/x.json"], "there is no directory"),
        (["--html", "."], "is a directory"),
        (["--json", "one.file", "--html", "one.file"], "same file"),
        (["--from", "absent.json"], "No such file"),
        (["--from", "saved.json", "--full"], "it does not go with --full"),
        (["--from", "saved.json", "--rounds", "3"], "it does not go with --rounds"),
        (["--json", "saved.json", "--resume"], "--resume saved.json: that run was on"),
        (["--fast"], "unrecognized arguments"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(saved, arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(run, "measure", None)  # nothing may be measured
    before = saved.read_text()
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", *arguments])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert saved.read_text() == before
    assert [path.name for path in saved.parent.iterdir()] == ["saved.json"]


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"schema": "normkit-bench/1"}', '{"schema": "normkit-bench/3"}']
)
def test_a_damaged_file_is_one_line(saved, text, capsys):
    saved.write_text(text)
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "--from", "saved.json"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (saved.parent / "normkit-bench.html").exists()


def test_a_saved_run_with_everything_in_it_is_drawn(saved, capsys):
    assert cli.main(["bench", "--from", "saved.json"]) == 0
    assert "unsteady" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["rich.console", "matplotlib", "jinja2"])
def test_a_missing_extra_is_named(saved, missing, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("normkit.bench.report", "normkit._svg"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("normkit.bench.report", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "--from", "saved.json"])
    assert ended.value.code == 2
    assert "pip install 'normkit[bench]'" in capsys.readouterr().err


def test_normkit_leaves_the_bench_and_its_extras_alone():
    code = (
        "import sys, normkit\n"
        "extras = {'onnx', 'onnxruntime', 'jax', 'matplotlib', 'jinja2', 'rich'}\n"
        "assert not any(name.startswith('normkit.bench') for name in sys.modules)\n"
        "import normkit.cli\n"
        "try: normkit.cli.main(['bench', '--help'])\n"
        "except SystemExit: pass\n"
        "print(extras & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    for option in (
        "--full",
        "--op",
        "--shape",
        "--direction",
        "--dtype",
        "--contender",
        "--threads",
        "--from",
    ):
        assert option in done.stdout


def test_bench_files_are_named_by_machine_and_versions():
    machine = dataclasses.replace(make_bench().machine, kernels="cpu: normkit C++ core, avx2")
    assert machine.name == "a-processor-more-avx2-2threads-normkit0.1.0-torch2.13.0"
