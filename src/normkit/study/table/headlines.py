"""The findings in a sentence each, for the top of the report."""

from __future__ import annotations

from normkit.study.results import Comparison
from normkit.study.summary import Summary
from normkit.study.table.batch_size import best_batch_size, falls
from normkit.study.table.cost import cost_of, is_unsteady
from normkit.study.table.gap import gap_signs
from normkit.study.table.row import COLUMNS, REFERENCE
from normkit.study.table.use import architectures, is_among_best
from normkit.study.wording import NAMES, listing, percent, times

__all__ = ["headlines"]


def headlines(comparison: Comparison, summary: Summary) -> tuple[str, ...]:
    """What was found, a sentence a row; with one seed only what needs no spread."""
    resolution = 1 / comparison.settings.test_images
    told = comparison.settings.seeds > 1
    found = [_suits(summary, resolution), _small_batches(summary, resolution)] if told else []
    found += [_streaming(summary), _cost(summary)]
    found += [_gap(summary, resolution)] if told else []
    return tuple(sentence for sentence in found if sentence)


def _suits(summary: Summary, resolution: float) -> str:
    parts, indifferent = [], []
    for architecture in architectures(summary):
        best = [
            NAMES[norm]
            for norm in (*COLUMNS, REFERENCE)
            if is_among_best(summary, architecture, norm, resolution)
        ]
        if len(best) == len(NAMES):
            indifferent.append(architecture)
        else:
            parts.append(f"{listing(best)} in the {architecture}")
    sentence = f"Highest test accuracy, or not different from it: {'; '.join(parts)}." if parts else ""
    if indifferent:
        sentence += f" In the {listing(indifferent)} no norm made a difference that could be seen."
    return sentence.strip()


def _small_batches(summary: Summary, resolution: float) -> str:
    parts, steady = [], []
    for norm in COLUMNS:
        losses = []
        for (architecture, other), groups in summary.sweep.items():
            if other == norm and falls(groups, resolution):
                small, best = groups[min(groups)], groups[best_batch_size(groups)]
                lost = 100 * (best.test_accuracy.mean - small.test_accuracy.mean)
                losses.append(f"{lost:.1f} points in the {architecture}")
        if losses:
            parts.append(f"{NAMES[norm]} loses {listing(losses)} against its best batch size")
        else:
            steady.append(NAMES[norm])
    parts += [f"no loss was seen for {listing(steady)}"] if steady else []
    smallest = min((min(groups) for groups in summary.sweep.values()), default=None)
    return f"At batch size {smallest}, {'; '.join(parts)}." if smallest else ""


def _streaming(summary: Summary) -> str:
    sentences = []
    for architecture in dict.fromkeys(name for name, _ in summary.streaming):
        parts = []
        for norm in COLUMNS:
            group = summary.streaming[architecture, norm]
            reached = (
                "cannot train (ValueError)" if group.error else f"reaches {percent(group.test_accuracy)}"
            )
            parts.append(f"{NAMES[norm]} {reached}")
        sentences.append(f"in the {architecture} {listing(parts)}")
    return f"One image at a time, {'; '.join(sentences)}." if sentences else ""


def _cost(summary: Summary) -> str:
    parts = []
    for norm in COLUMNS:
        ours, theirs = (cost_of(summary, norm, name, backward=True) for name in ("normkit", "torch"))
        if ours is not None and ours.ratio is not None and theirs is not None and theirs.ratio is not None:
            parts.append(f"{NAMES[norm]} {times(ours.ratio)} (PyTorch's own {times(theirs.ratio)})")
    if not parts:
        return ""
    sentence = f"A forward and backward pass takes, in copies of the tensor: {listing(parts)}."
    if is_unsteady(summary):
        sentence += " The timings are unsteady: was the machine doing something else? Measure again."
    return sentence


def _gap(summary: Summary, resolution: float) -> str:
    smaller = [
        f"{NAMES[norm]} in the {architecture}"
        for norm in COLUMNS
        for architecture, sign in gap_signs(summary, norm, resolution).items()
        if sign == -1
    ]
    if not smaller:
        return "No norm was seen to narrow the gap between training and test accuracy."
    return f"A smaller gap between training and test accuracy than without a norm: {listing(smaller)}."
