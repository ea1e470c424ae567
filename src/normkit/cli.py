"""The `normkit` command: arguments only."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from normkit.bench.results import Bench

__all__ = ["main"]

USER_ERROR, INTERRUPTED = 2, 130
MOST_WORKERS = 8  # by default: each holds its own PyTorch, some 400 MB
# What an extra brings and a command may find missing.
EXTRAS = ("rich", "sklearn", "matplotlib", "jinja2")


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
        if (error.name or "").split(".")[0] not in EXTRAS:
            raise
        extra = "study" if arguments.run is _compare else "bench"
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
    from normkit.bench.cases import DEFAULT_DTYPES, DIRECTIONS, DTYPES, GROUPS, OPS
    from normkit.bench.contenders.registry import CONTENDERS, PEERS

    parser = commands.add_parser(
        "bench",
        help="measure the speed of the norms next to PyTorch's and others'",
        description="Time LayerNorm, RMSNorm and BatchNorm of normkit, PyTorch, torch.compile, ONNX Runtime "
        "and JAX, on a GPU Liger-Kernel and QuACK (where installed) by turns, next to the floor: the fastest "
        "copy of the same bytes. A result is checked in float64 before its time counts. Without --full or "
        "--shape: a choice of cases that takes a few minutes.",
    )
    parser.add_argument("--full", action="store_true", help="all cases, for an hour or more")
    parser.add_argument("--op", nargs="+", choices=OPS, metavar="OP", help=f"only these: {', '.join(OPS)}")
    parser.add_argument(
        "--shape",
        nargs="+",
        type=_shapes,
        metavar="SHAPE",
        help=f"these shapes, as 512x4096, or groups: {', '.join(GROUPS)}",
    )
    parser.add_argument(
        "--direction",
        nargs="+",
        choices=DIRECTIONS,
        metavar="DIRECTION",
        help=f"only these: {', '.join(DIRECTIONS)}",
    )
    parser.add_argument(
        "--dtype",
        nargs="+",
        choices=DTYPES,
        default=DEFAULT_DTYPES,
        metavar="DTYPE",
        help=f"of {', '.join(DTYPES)} (default: {' '.join(DEFAULT_DTYPES)})",
    )
    parser.add_argument(
        "--contender",
        nargs="+",
        choices=tuple(CONTENDERS),
        metavar="NAME",
        help=f"next to normkit only these: {', '.join(PEERS)}",
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where: the CPU, or the GPU that PyTorch calls cuda (default: %(default)s)",
    )
    parser.add_argument("--threads", type=_positive, metavar="N", help="threads (default: PyTorch's)")
    parser.add_argument(
        "--rounds",
        type=_positive,
        default=31,
        metavar="N",
        help="samples of each contender (default: %(default)s)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="save all results as JSON, after every case"
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep the steady cases that --json's file holds already"
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        default=Path("normkit-bench.html"),
        help="where to write the report (default: %(default)s)",
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="draw table and report from a saved JSON, measure nothing",
    )
    parser.set_defaults(run=_bench, parser=parser)


def _bench(arguments: argparse.Namespace) -> int:
    _check_bench(arguments)

    # Imported here: what the table and the report need are extras.
    from rich.console import Console

    from normkit.bench import report, results, summary, table

    console = Console()
    if not console.is_terminal:
        console = Console(width=table.WIDTH)
    if arguments.source is not None:
        bench = _load_bench("--from", arguments.source)
    else:
        try:
            bench = _measure(arguments)
        except KeyboardInterrupt:
            if arguments.json is None or not arguments.json.exists():
                raise
            print(f"normkit: interrupted; --resume goes on from {arguments.json}", file=sys.stderr)
            return INTERRUPTED
    found = summary.summarise(bench)
    if arguments.json is not None:
        results.save(bench, arguments.json)
    arguments.html.write_text(report.render(bench, found), encoding="utf-8")
    table.print_bench(console, bench, found)
    console.print(f"The report: open {arguments.html}", soft_wrap=True, highlight=False, markup=False)
    return 0


def _check_bench(arguments: argparse.Namespace) -> None:
    _check_files(arguments)
    choices = (
        *("full", "op", "shape", "direction", "dtype", "contender", "device", "threads", "rounds", "resume"),
    )
    given = [
        f"--{name}" for name in choices if getattr(arguments, name) != arguments.parser.get_default(name)
    ]
    if arguments.source is not None and given:
        _fail(f"normkit: --from measures nothing, so it does not go with {given[0]}")
    if arguments.full and arguments.shape:
        _fail("normkit: --full has its own shapes, so it does not go with --shape")
    if arguments.resume and arguments.json is None:
        _fail("normkit: --resume needs --json FILE, the file to go on with")


def _measure(arguments: argparse.Namespace) -> Bench:
    import torch

    from normkit.bench import cases, machine, progress, results, run
    from normkit.bench.contenders import registry

    if arguments.device == "cuda" and not torch.cuda.is_available():
        _fail("normkit: --device cuda: PyTorch finds no GPU here (torch.cuda.is_available() is False)")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    choice = arguments.op or cases.OPS, arguments.dtype, arguments.direction
    if arguments.shape:
        shapes = [shape for group in arguments.shape for shape in group]
        todo = cases.chosen(shapes, *choice)
    else:
        choose = cases.full if arguments.full else cases.quick
        todo = choose(*choice, device=arguments.device)
    if not todo:
        _fail("normkit: there is no such case: --op, --shape and --direction leave nothing to measure")
    here = machine.this_machine(arguments.device)
    named = arguments.contender or registry.peers(arguments.device)
    peers = tuple(name for name in named if name != run.OURS)
    settings = results.Settings(arguments.rounds, peers)
    kept: tuple[results.Row, ...] = ()
    if arguments.resume and arguments.json.exists():
        try:
            kept = run.kept_rows(_load_bench("--json", arguments.json), here, settings)
        except ValueError as error:
            _fail(f"normkit: --resume {arguments.json}: {error}")

    def saved(bench: Bench) -> None:
        if arguments.json is not None:
            results.save(bench, arguments.json)

    with progress.show(len(todo)) as started:
        return run.run(todo, here, settings, kept, started, saved)


def _load_bench(option: str, path: Path) -> Bench:
    from normkit.bench import results

    try:
        return results.load(path)
    except OSError as error:
        _fail(f"normkit: {option} {path}: {error.strerror}")
    except ValueError as error:
        _fail(f"normkit: {option} {path}: {error}")


def _compare(arguments: argparse.Namespace) -> int:
    _check_files(arguments)
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


def _shapes(text: str) -> tuple[tuple[int, ...], ...]:
    from normkit.bench.cases import parse_shape

    try:
        return parse_shape(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _check_files(arguments: argparse.Namespace) -> None:
    for option, path in (("--html", arguments.html), ("--json", arguments.json)):
        if path is not None:
            _check_writable(option, path)
    if arguments.json is not None and arguments.json.resolve() == arguments.html.resolve():
        _fail(f"normkit: --json and --html name the same file, {arguments.html}")


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
