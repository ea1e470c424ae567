"""`make numerics`: a million groups of every dtype, ours and PyTorch's; the table of docs/numerics.md."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tests.data import DTYPES, name_of, rng
from tests.numerics.whole_range import KINDS, NORMS, Verdict, epsilons, judge, operands

# Of how many elements, and one of so many groups: from 256 on, sums are not taken in double.
WIDTHS = ((40, 1), (300, 10))
AT_ONCE = 2000
HEADER = """| dtype | norm | groups | normkit: not finite | wrong | worst output, gradient (units) | \
PyTorch: not finite | wrong |
|---|---|---:|---:|---:|---:|---:|---:|"""


def pytorch_has(name, eps):
    """It has no eps outside the root, and its BatchNorm wants an eps in training."""
    return "outside" not in name and not (name.startswith("BatchNorm") and eps == 0)


def sweep(name, dtype, groups):
    """Ours and PyTorch's verdicts over at least so many groups of every kind and eps."""
    cases = [(kind, eps, *width) for kind in KINDS for eps in epsilons(dtype) for width in WIDTHS]
    ours, theirs = Verdict(), Verdict()
    for kind, eps, width, one_of in cases:
        norm, left = NORMS[name](eps), -(-groups // (len(KINDS) * len(epsilons(dtype)) * one_of))
        while left > 0:
            o = operands(rng(name, kind, eps, left), name, kind, min(left, AT_ONCE), width, dtype)
            ours += judge(norm.ours, norm, o)
            if pytorch_has(name, eps):
                theirs += judge(norm.pytorch, norm, o)
            left -= AT_ONCE
    return ours, theirs


def row(name, dtype, ours, theirs):
    """A line of the table."""
    other = f"{theirs.not_finite:,} | {theirs.wrong:,}" if theirs.groups else "– | –"
    return (
        f"| {name_of(dtype)} | {name} | {ours.groups:,} | {ours.not_finite:,} | {ours.wrong:,} | "
        f"{ours.output:.2f}, {ours.gradient:.2f} | {other} |"
    )


def main():
    """Print the table, and put it into the page where one is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=1_000_000, help="of every dtype")
    parser.add_argument("--page", type=Path, help="write the table between its marks")
    arguments = parser.parse_args()
    lines = [HEADER]
    print(HEADER, flush=True)
    failures = 0
    for dtype in DTYPES:
        for name in NORMS:
            ours, theirs = sweep(name, dtype, arguments.groups // len(NORMS))
            failures += ours.wrong
            lines.append(row(name, dtype, ours, theirs))
            print(lines[-1], flush=True)
    if arguments.page:
        text = arguments.page.read_text()
        marked = "<!-- sweep -->\n" + "\n".join(lines) + "\n<!-- end of sweep -->"
        arguments.page.write_text(
            re.sub(r"<!-- sweep -->.*<!-- end of sweep -->", lambda _: marked, text, flags=re.S)
        )
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
