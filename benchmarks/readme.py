"""README's table of the bench, and its plot, from the newest run in `results/`.

python benchmarks/readme.py            writes both
python benchmarks/readme.py --check    says whether both are as it would write them
"""

import sys
from pathlib import Path

from normkit._svg import COLOURS, INK, MUTED, SURFACE
from normkit.bench import results, wording
from normkit.bench.cases import Case
from normkit.bench.contenders import CONTENDERS
from normkit.bench.report.plots import ratio_panels
from normkit.bench.results import Bench, Row
from normkit.bench.summary import BEHIND, Summary, summarise

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- bench: written by benchmarks/readme.py -->", "<!-- end of bench -->"

IMAGES, TRAINING = (32, 64, 56, 56), "batch_norm_training"
REPRESENTATIVE = (
    Case("rms_norm", (1, 4096), "forward"),
    Case("rms_norm", (512, 4096), "forward"),
    Case("rms_norm", (512, 4096), "forward", "bfloat16"),
    Case("rms_norm", (512, 4096), "forward+backward"),
    Case("layer_norm", (512, 4096), "forward"),
    Case("layer_norm", (512, 4096), "forward+backward"),
    Case("layer_norm", (8192, 768), "forward", "bfloat16"),
    Case("layer_norm", (8192, 768), "forward+backward", "bfloat16"),
    Case("batch_norm_inference", IMAGES, "forward"),
    Case(TRAINING, IMAGES, "forward+backward"),
    Case(TRAINING, IMAGES, "forward+backward", channels_last=True),
    Case(TRAINING, IMAGES, "forward+backward", "bfloat16"),
)

# The page's variables, for a drawing that stands alone: GitHub shows it on white or on near-black.
LIGHT = {"ink": "#1f2328", "muted": "#59636e", "surface": "#ffffff", "page": "#ffffff"}
LIGHT |= {"pytorch": "#c2501a", "inductor": "#b8860b", "onnxruntime": "#2463b5", "jax": "#8a4fa8"}
DARK = {"ink": "#f0f6fc", "muted": "#9198a1", "surface": "#0d1117", "page": "#0d1117"}
DARK |= {"pytorch": "#f08e5b", "inductor": "#dcb355", "onnxruntime": "#74a9f0", "jax": "#c792e0"}


def runs() -> list[tuple[Path, Bench]]:
    """All runs there are, the newest first."""
    found = [(path, results.load(path)) for path in sorted((ROOT / "benchmarks" / "results").glob("*.json"))]
    return sorted(found, key=lambda run: run[1].created, reverse=True)


def block(path: Path, plot: Path, bench: Bench, others: list[tuple[Path, Bench]]) -> str:
    """What stands between README's marks."""
    rows = {row.case: row for row in bench.rows}
    peers = [p for p in bench.settings.peers if any(row.seconds(p) for row in rows.values())]
    titles = [CONTENDERS[peer].title for peer in peers]
    machine = bench.machine
    lines = [
        f"{machine.title}, PyTorch {machine.torch.split('+')[0]}: normkit's time, "
        "its share of the floor (the fastest copy of the same bytes), and how many times as fast it is as "
        "others.",
        "",
        f"| norm | shape | dtype | | normkit | of floor | {' | '.join(titles)} |",
        "|---" * (6 + len(peers)) + "|",
        *(_line(rows[case], peers) for case in REPRESENTATIVE if case in rows and rows[case].steady),
        "",
        *_totals(bench, summarise(bench), peers),
        "",
        f"![Times as fast as each contender, by norm and direction]({plot.relative_to(ROOT).as_posix()})",
        "",
        f"All cases: [{path.name}]({path.relative_to(ROOT).as_posix()}); how to read them: "
        "[docs/benchmarks.md](docs/benchmarks.md).",
        *_elsewhere(bench, others),
    ]
    return "\n".join([BEGIN, *lines, END])


def _line(row: Row, peers: list[str]) -> str:
    ours, share = row.seconds("normkit"), row.share_of_floor
    norm, direction = wording.group_name(row.case).split(", ")
    shape = row.case.shape_name.replace(" ", ", ")
    ratios = [row.ratio(peer) for peer in peers]
    cells = [
        *(norm, shape, row.case.dtype, direction),
        "wrong" if ours is None else wording.duration(ours),
        "" if share is None else wording.percent(share),
        *(_times(ratio) for ratio in ratios),
    ]
    return f"| {' | '.join(cells)} |"


def _times(ratio: float | None) -> str:
    """Bold where normkit is ahead."""
    if ratio is None:
        return ""
    return f"**{wording.times(ratio)}**" if ratio >= 1 else wording.times(ratio)


def _totals(bench: Bench, summary: Summary, peers: list[str]) -> list[str]:
    if summary.best is None:
        return []
    means = [
        f"{CONTENDERS[p].title} {wording.times(summary.against[p].value)}"
        for p in peers
        if p in summary.against
    ]
    best, behind = wording.times(summary.best.value), len(summary.behind)
    return [
        f"Geometric means over {summary.best.cases} steady cases of {len(bench.rows)}: {', '.join(means)}; "
        f"the best contender of each case {best}, with {behind} case{'' if behind == 1 else 's'} below "
        f"{BEHIND:g} of it."
    ]


def _elsewhere(here: Bench, others: list[tuple[Path, Bench]]) -> list[str]:
    """The last run on each other machine, a line for each."""
    seen, lines = {_place(here)}, []
    for path, bench in others:
        summary = summarise(bench)
        if _place(bench) in seen or summary.best is None or "pytorch" not in summary.against:
            continue
        seen.add(_place(bench))
        link = f"[{bench.machine.title}]({path.relative_to(ROOT).as_posix()})"
        pytorch, best = (wording.times(mean.value) for mean in (summary.against["pytorch"], summary.best))
        lines.append(f"| {link} | {bench.created[:10]} | {pytorch} | {best} | {len(summary.behind)} |")
    head = f"| other machines | run of | PyTorch | best of each case | below {BEHIND:g} of it |"
    return ["", head, "|---" * 5 + "|", *lines] if lines else []


def _place(bench: Bench) -> tuple[str, str, str, int]:
    """What makes a machine another, whatever the versions on it."""
    machine = bench.machine
    return machine.gpu, machine.cpu, machine.instructions, machine.threads


def drawing(bench: Bench) -> str:
    """The ratios of the float32 cases as an SVG file that follows the reader's light or dark."""
    panel = ratio_panels(bench)[0]
    colours = {**COLOURS, "ink": INK, "muted": MUTED, "surface": SURFACE}
    names = [name for name in LIGHT if name in colours or name == "page"]
    style = "svg{" + "".join(f"--{name}:{LIGHT[name]};" for name in names)
    style += "background:var(--page);font-family:sans-serif}@media(prefers-color-scheme:dark){svg{"
    style += "".join(f"--{name}:{DARK[name]};" for name in names) + "}}"
    head, body = panel.svg.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"><style>{style}</style>{body}\n'


def main(check: bool) -> int:
    """Write or check; exit code 1 where something differs."""
    (path, bench), *others = runs()
    plot = path.with_suffix(".svg")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    wanted = {readme: before + block(path, plot, bench, others) + rest.split(END)[1], plot: drawing(bench)}
    different = [
        file
        for file, content in wanted.items()
        if not file.exists() or file.read_text(encoding="utf-8") != content
    ]
    for file in different:
        if check:
            print(f"{file.relative_to(ROOT)} is not what benchmarks/readme.py writes", file=sys.stderr)
        else:
            file.write_text(wanted[file], encoding="utf-8")
    return int(check and bool(different))


if __name__ == "__main__":
    sys.exit(main(check=sys.argv[1:] == ["--check"]))
