"""Measure launches of the Triton row norms next to the formulas' and keep what is faster: a GPU's own table.

``python benchmarks/tune.py`` rewrites `src/normkit/kernels/triton/tuned.py`; nothing is tried out when a norm
is called. For each width that registers hold, forward and backward, it times the formula's launch and
its neighbours by turns, over operands past any cache; one has to win by 3% over float32 and bfloat16 as one.
"""

from __future__ import annotations

import functools
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

import torch  # noqa: E402

from normkit.bench import timing  # noqa: E402
from normkit.bench.gpu.replay import Replay, by_events, own_stream  # noqa: E402
from normkit.kernels.triton import launch, row_norm, tuned  # noqa: E402
from normkit.kernels.triton.device import chip_of  # noqa: E402

TABLE = ROOT / "src/normkit/kernels/triton/tuned.py"
DEVICE, ELEMENTS = "cuda", 2**26
WIDTHS = [2**k for k in range(6, 16)]
GAIN, ROUNDS, SIZE = 1.03, 15, 4


def seconds(
    which: str, n: int, dtype: torch.dtype, choices: list[launch.Launch], chip: launch.Chip
) -> list[float]:
    """The median time of a LayerNorm's pass with each launch."""
    x, g = torch.randn(2, 2, ELEMENTS // n, n, device=DEVICE).to(dtype)
    weight, bias = torch.randn(2, n, device=DEVICE).to(dtype)
    parameters = (weight, bias, 1e-5, True)
    kept = [row_norm.row_norm_fwd(one, *parameters)[1] for one in x]
    ways = {
        "forward": [functools.partial(row_norm.row_norm_fwd, one, *parameters) for one in x],
        "backward": [
            functools.partial(row_norm.row_norm_bwd, *both, saved, *parameters)
            for *both, saved in zip(g, x, kept, strict=True)
        ],
    }
    calls = {}
    for choice in choices:
        tuned.TUNED[chip.architecture, which, SIZE, n] = (choice.rows, choice.warps)
        row_norm.forget()
        calls[str(choice)] = Replay(ways[which])
    del tuned.TUNED[chip.architecture, which, SIZE, n]
    samples, _ = timing.take_turns(calls, calls[str(choices[0])], ROUNDS, clock=by_events)
    return [statistics.median(samples[str(choice)].seconds) for choice in choices]


def best(which: str, n: int, chip: launch.Chip) -> launch.Launch | None:
    """What beats the formula's launch, or None."""
    choose = launch.row_forward if which == "forward" else launch.row_backward
    formula = choose(n, SIZE, chip)
    if formula is None:
        return None
    choices = [formula, *launch.neighbours(formula, chip)]
    by_dtype = [seconds(which, n, dtype, choices, chip) for dtype in (torch.float32, torch.bfloat16)]
    gains = [
        statistics.geometric_mean(times[0] / times[number] for times in by_dtype)
        for number in range(len(choices))
    ]
    winner = max(range(len(choices)), key=gains.__getitem__)
    print(f"{which} {n}: {formula} to {choices[winner]}: {gains[winner]:.3f} times as fast", flush=True)
    return choices[winner] if gains[winner] >= GAIN else None


def write(table: dict[tuple[str, str, int, int], tuple[int, int]]) -> None:
    """The module with this table in it."""
    text = TABLE.read_text(encoding="utf-8")
    head = text[: text.index("TUNED:")]
    lines = "".join(f"    {key!r}: {table[key]!r},\n".replace("'", '"') for key in sorted(table))
    body = f"{{\n{lines}}}" if table else "{}"
    TABLE.write_text(
        f"{head}TUNED: dict[tuple[str, str, int, int], tuple[int, int]] = {body}\n", encoding="utf-8"
    )


def main() -> int:
    if not torch.cuda.is_available():
        print("tune: PyTorch finds no GPU here", file=sys.stderr)
        return 2
    chip = chip_of(torch.device(DEVICE, torch.cuda.current_device()))
    for key in [key for key in tuned.TUNED if key[0] == chip.architecture]:
        del tuned.TUNED[key]
    found = dict(tuned.TUNED)
    with torch.inference_mode(), own_stream():
        for which in ("forward", "backward"):
            for n in WIDTHS:
                winner = best(which, n, chip)
                if winner is not None:
                    found[chip.architecture, which, SIZE, n] = (winner.rows, winner.warps)
    write(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
