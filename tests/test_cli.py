"""The command as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from normkit import cli

from .study.browser import console_and_dom
from .study.conftest import make_comparison


def normkit(*arguments, cwd):
    command = [sys.executable, "-m", "normkit.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "saved.json"
    path.write_text(make_comparison().to_json(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rehearsal")
    return folder, normkit("compare", "--quick", "--json", "out.json", cwd=folder)


def test_compare_ends_well_and_names_the_report(rehearsal):
    folder, done = rehearsal
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "The report: open normkit-compare.html"
    assert (folder / "normkit-compare.html").stat().st_size > 50_000


def test_compare_prints_the_article_s_rows(rehearsal):
    _, done = rehearsal
    flat = " ".join(done.stdout.split())
    for title in (
        "Axes normalised",
        "Compute cost",
        "Dependence on batch size",
        "Where it suits",
        "Regularising",
    ):
        assert title in flat
    for name in ("BatchNorm", "LayerNorm", "RMSNorm"):
        assert name in flat
    assert "batch, height, width" in flat
    assert "training: 100%" in flat
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_compare_saves_every_raw_result(rehearsal):
    folder, _ = rehearsal
    content = json.loads((folder / "out.json").read_text())
    assert content["schema"] == "normkit-compare/1"
    assert content["settings"]["seeds"] == 2
    assert content["machine"]["torch"]
    networks = {(run["config"]["architecture"], run["config"]["norm"]) for run in content["runs"]}
    assert len(networks) == 16
    errors = [run for run in content["runs"] if run["error"]]
    assert {(run["config"]["norm"], run["config"]["batch_size"]) for run in errors} == {("batch", 1)}
    assert all(cost["max_error"] <= 1 and len(cost["seconds"]) == 5 for cost in content["costs"])
    assert [row["key"] for row in content["table"]] == ["axes", "cost", "batch size", "use", "gap", "mode"]


def test_compare_redraws_from_json_without_measuring(rehearsal, tmp_path):
    folder, _ = rehearsal
    source = str(folder / "out.json")
    done = normkit("compare", "--from", source, "--html", "again.html", "--json", "again.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "training:" not in done.stdout
    assert (tmp_path / "again.html").read_text() == (folder / "normkit-compare.html").read_text()
    assert (tmp_path / "again.json").read_text() == (folder / "out.json").read_text()


def test_the_report_opens_in_chromium_without_a_console_message(rehearsal):
    folder, _ = rehearsal
    console, dom = console_and_dom(folder / "normkit-compare.html")
    assert console == []
    assert "A rehearsal" in dom


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "must be a whole number of 1 or more"),
        (["--seeds", "two"], "must be a whole number of 1 or more"),
        (["--workers", "-1"], "must be a whole number of 1 or more"),
        (["--html", "absent/x.html"], "there is no directory"),
        (["--json", "absent/x.json"], "there is no directory"),
        (["--html", "."], "is a directory"),
        (["--from", "absent.json"], "No such file"),
        (["--from", "."], "directory"),
        (["--from", "saved.json", "--quick"], "goes with none of"),
        (["--json", "one.file", "--html", "one.file"], "same file"),
        (["--fast"], "unrecognized arguments"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(saved, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(saved.parent)
    monkeypatch.setattr("normkit.study.compare.compare", None)  # nothing may be measured
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", *arguments])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"schema": "normkit-compare/9"}', '{"schema": "normkit-compare/1"}']
)
def test_a_bad_json_is_refused_in_one_line(tmp_path, text, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", "--from", "bad.json"])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "normkit-compare.html").exists()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a directory in which nobody may write")
def test_a_place_that_cannot_be_written_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", "--html", "/proc/self/x.html"])
    assert ended.value.code == 2
    assert "cannot be written" in capsys.readouterr().err


def test_an_old_report_survives_a_mistake(tmp_path):
    old = tmp_path / "old.html"
    old.write_text("old")
    with pytest.raises(SystemExit):
        cli.main(["compare", "--html", str(old), "--from", str(tmp_path / "absent.json")])
    assert old.read_text() == "old"


def test_a_missing_extra_is_named(saved, capsys, monkeypatch):
    monkeypatch.chdir(saved.parent)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", "--from", "saved.json"])
    assert ended.value.code == 2
    assert "pip install 'normkit[study]'" in capsys.readouterr().err


def test_import_normkit_leaves_the_extras_alone():
    code = "import sys, normkit, normkit.cli; print({'rich', 'sklearn', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_help_says_what_each_option_is(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in ("--seeds", "--workers", "--json", "--html", "--from", "--quick"):
        assert option in text


def test_a_command_is_required(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_ctrl_c_ends_cleanly(tmp_path):
    command = [sys.executable, "-m", "normkit.cli", "compare", "--quick", "--json", "out.json"]
    running = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background job ignores the signal, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in running.stdout:
        if line.startswith("training"):
            break
    time.sleep(1)
    os.killpg(running.pid, signal.SIGINT)
    _, error = running.communicate(timeout=60)
    # Together, so that a failure shows what was said.
    assert (running.returncode, error.splitlines()) == (130, ["normkit: interrupted, nothing was written"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("settings", "seeds"), "many"),
        (("costs", 0, "seconds"), [0, 0]),
        (("runs", 0, "test_accuracy"), "x"),
        (("runs",), []),
    ],
    ids=str,
)
def test_damaged_values_end_with_one_line(place, value, saved, monkeypatch, capsys):
    monkeypatch.chdir(saved.parent)
    content = json.loads(saved.read_text())
    *path, last = place
    holder = content
    for step in path:
        holder = holder[step]
    holder[last] = value
    saved.write_text(json.dumps(content))
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", "--from", saved.name])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (saved.parent / "normkit-compare.html").exists()
