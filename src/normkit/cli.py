"""The `normkit` command: arguments only."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

__all__ = ["main"]

USER_ERROR, INTERRUPTED = 2, 130
MOST_WORKERS = 8  # by default: each holds its own PyTorch, some 400 MB
# Which extra brings what a command may find missing.
EXTRAS = {"rich": "cli", "sklearn": "study", "matplotlib": "study", "jinja2": "study"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `normkit` with `argv` and return its exit code: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="normkit", description="Batch, Layer and RMS normalization for PyTorch."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_compare(commands)
    _add_bench(commands)
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        extra = "study" if arguments.run is _compare else extra
        _fail(f"normkit: this command needs {error.name}: pip install 'normkit[{extra}]'")
    except KeyboardInterrupt:
        print("normkit: interrupted, nothing was written", file=sys.stderr)
        return INTERRUPTED


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "compare",
        help="measure the three norms on this machine, on real data",
        description="Train a CNN, an MLP, an RNN and a Transformer on scikit-learn's digits without a norm "
        "and with BatchNorm, LayerNorm and RMSNorm, time the norms, and show what was found as a table and "
        "as one HTML file. Takes about two minutes on two cores.",
    )
    parser.add_argument(
        "--seeds",
        type=_positive,
        metavar="N",
        help="repeat every training with N seeds (default: 3; one gives no spread)",
    )
    parser.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help="processes that train side by side (default: one per core, at most 8)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="save all raw results and the table as JSON"
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        default=Path("normkit-compare.html"),
        help="where to write the report (default: %(default)s)",
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="draw the report from a saved JSON, measure nothing",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a rehearsal in seconds, too rough to choose by (two seeds by default)",
    )
    parser.set_defaults(run=_compare)


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure the speed of the norms next to PyTorch's",
        description="Time LayerNorm, RMSNorm and BatchNorm of normkit and of PyTorch by turns, next to a "
        "copy of the same tensor. A result is checked against the float64 reference before its time counts.",
    )
    parser.add_argument(
        "--rounds",
        type=_positive,
        default=31,
        metavar="N",
        help="samples of each contender (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="save all results as JSON")
    parser.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    if arguments.json is not None:
        _check_writable("--json", arguments.json)

    from rich.console import Console
    from rich.progress import track

    from normkit.bench import cases, measure, table

    console = Console()
    if not console.is_terminal:
        console = Console(width=table.WIDTH)
    measure.keep_memory()
    results = [
        measure.measure(case, arguments.rounds)
        for case in track(cases.CASES, description="Measuring", console=Console(stderr=True))
    ]
    if arguments.json is not None:
        arguments.json.write_text(table.to_json(results), encoding="utf-8")
    console.print(table.to_table(results))
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    for option, path in (("--html", arguments.html), ("--json", arguments.json)):
        if path is not None:
            _check_writable(option, path)
    if arguments.json is not None and arguments.json.resolve() == arguments.html.resolve():
        _fail(f"normkit: --json and --html name the same file, {arguments.html}")
    if arguments.source is not None and (arguments.seeds or arguments.workers or arguments.quick):
        _fail("normkit: --from measures nothing, so it goes with none of --seeds, --workers, --quick")

    # Imported here: what the study needs takes seconds to import and is an extra.
    from rich.console import Console

    from normkit.study import compare, report, results, summary, table, terminal

    console = Console()
    if not console.is_terminal:
        console = Console(width=terminal.WIDTH)
    if arguments.source is not None:
        try:
            comparison = results.load(arguments.source)
        except OSError as error:
            _fail(f"normkit: --from {arguments.source}: {error.strerror}")
        except (ValueError, RecursionError) as error:
            _fail(f"normkit: --from {arguments.source}: {error}")
    else:
        plan = compare.quick if arguments.quick else compare.full
        settings = plan(
            arguments.seeds or (2 if arguments.quick else 3), arguments.workers or _default_workers()
        )
        with terminal.show_progress(console) as progress:
            comparison = compare.compare(settings, progress)

    try:
        figures = summary.summarise(comparison)
        rows = table.build_table(comparison, figures)
        found = table.headlines(comparison, figures)
        page = report.render(comparison, figures, rows)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        if arguments.source is None:
            raise
        _fail(f"normkit: --from {arguments.source}: values are not those of a comparison ({error})")
    # The files first: a reader who pipes the table into `head` still gets them.
    if arguments.json is not None:
        derived = {"headlines": found, "table": [dataclasses.asdict(row) for row in rows]}
        arguments.json.write_text(comparison.to_json(**derived), encoding="utf-8")
    arguments.html.write_text(page, encoding="utf-8")
    terminal.print_findings(console, comparison, rows, found)
    console.print(f"The report: open {arguments.html}", soft_wrap=True, highlight=False, markup=False)
    return 0


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, got {text!r}")
    return number


def _check_writable(option: str, path: Path) -> None:
    # Found out now, not after minutes of work.
    if path.is_dir():
        _fail(f"normkit: {option} {path}: is a directory; name a file")
    if not path.parent.is_dir():
        _fail(f"normkit: {option} {path}: there is no directory {path.parent}")
    was_there = path.exists()
    try:
        path.open("a").close()
    except OSError as error:
        _fail(f"normkit: {option} {path}: cannot be written ({error.strerror})")
    if not was_there:
        path.unlink()


def _default_workers() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(USER_ERROR)


if __name__ == "__main__":
    sys.exit(main())
