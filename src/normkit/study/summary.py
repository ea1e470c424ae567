"""From raw results to figures with spread; pure functions, shared by the table and the plots."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from normkit.study.results import Comparison, Cost, Run
from normkit.study.spread import Quantiles, Spread

__all__ = ["CostSummary", "Group", "Summary", "summarise"]

GOAL = 0.9  # the test accuracy to which the speed of learning is measured


@dataclass(frozen=True)
class Group:
    """The runs that differ in the seed alone."""

    runs: tuple[Run, ...]

    @property
    def error(self) -> str | None:
        """The error in which the runs ended, or None."""
        return next((run.error for run in self.runs if run.error is not None), None)

    @property
    def learning_rate(self) -> float:
        """The learning rate of these runs."""
        return self.runs[0].config.learning_rate

    def spread(self, figure: Callable[[Run], float | None]) -> Spread:
        """Spread over the seeds of one figure of a run."""
        return Spread.of([value for value in map(figure, self.runs) if value is not None])

    @property
    def test_accuracy(self) -> Spread:
        """Share of the test images classified rightly, in inference mode, at the end."""
        return self.spread(lambda run: run.test_accuracy)

    @property
    def train_accuracy(self) -> Spread:
        """The same of the training images."""
        return self.spread(lambda run: run.train_accuracy)

    @property
    def accuracy_gap(self) -> Spread:
        """Training minus test accuracy, both in inference mode."""
        return self.spread(lambda run: _minus(run.train_accuracy, run.test_accuracy))

    @property
    def loss_gap(self) -> Spread:
        """Test minus training loss, both in inference mode, in nats."""
        return self.spread(lambda run: _minus(run.test_loss, run.train_loss))

    @property
    def mode_gap(self) -> Spread:
        """Test accuracy of inference mode minus that of training mode (statistics of each batch)."""
        return self.spread(lambda run: _minus(run.test_accuracy, run.batch_mode_accuracy))

    @property
    def batch_mode_accuracy(self) -> Spread:
        """Test accuracy with the layers in training mode."""
        return self.spread(lambda run: run.batch_mode_accuracy)

    @property
    def mode_shift(self) -> Spread:
        """Mean distance of the logits in the two modes, in standard deviations of the logits."""
        return self.spread(lambda run: run.batch_mode_shift)

    @property
    def images_to_goal(self) -> tuple[int | None, ...]:
        """Per seed: images seen at the first checkpoint with `GOAL` test accuracy, or None."""
        return tuple(
            next((point.samples for point in run.curve if point.test_accuracy >= GOAL), None)
            for run in self.runs
        )


@dataclass(frozen=True)
class CostSummary:
    """One timed case; where its result was wrong `ratio` and `seconds` are None."""

    cost: Cost
    ratio: Quantiles | None  # time over the time of a copy of the tensor taken next to it
    seconds: Quantiles | None

    @property
    def gigabytes_per_second(self) -> float | None:
        """Bytes that must move over the median time."""
        return None if self.seconds is None else self.cost.moved_bytes / self.seconds.median / 1e9

    @property
    def share_of_copy(self) -> float | None:
        """Bytes per second over those of the copy: 1 if the norm ran as fast as memory allows."""
        if self.ratio is None:
            return None
        return self.cost.moved_bytes / self.cost.copy_bytes / self.ratio.median


@dataclass(frozen=True)
class Summary:
    """All figures of a comparison, by what was varied."""

    architecture: dict[tuple[str, str], Group]  # (architecture, norm), at the chosen learning rate
    rates: dict[tuple[str, str], dict[float, Group]]  # the same at every rate of the grid
    sweep: dict[tuple[str, str], dict[int, Group]]  # by batch size
    streaming: dict[tuple[str, str], Group]
    costs: dict[tuple[str, str, tuple[int, ...], bool], CostSummary]  # norm, implementation, shape, backward


def summarise(comparison: Comparison) -> Summary:
    """Group the runs, choose the learning rates by validation accuracy, and reduce the timings."""
    rates: dict[tuple[str, str], dict[float, list[Run]]] = {}
    sweep: dict[tuple[str, str], dict[int, list[Run]]] = {}
    streaming: dict[tuple[str, str], list[Run]] = {}
    for run in comparison.runs:
        config = run.config
        key = config.architecture, config.norm
        if config.experiment == "architecture":
            rates.setdefault(key, {}).setdefault(config.learning_rate, []).append(run)
        elif config.experiment == "batch size":
            sweep.setdefault(key, {}).setdefault(config.batch_size, []).append(run)
        else:
            streaming.setdefault(key, []).append(run)
    by_rate = {key: {rate: _group(runs) for rate, runs in sorted(of.items())} for key, of in rates.items()}
    return Summary(
        architecture={key: best_rate(groups.values()) for key, groups in by_rate.items()},
        rates=by_rate,
        sweep={key: {size: _group(runs) for size, runs in sorted(of.items())} for key, of in sweep.items()},
        streaming={key: _group(runs) for key, runs in streaming.items()},
        costs={
            (cost.norm, cost.implementation, cost.shape, cost.backward): _cost_summary(cost)
            for cost in comparison.costs
        },
    )


def best_rate(groups: Iterable[Group]) -> Group:
    """The group of highest mean validation accuracy; of equals the first, the smallest learning rate."""
    return max(
        groups, key=lambda group: statistics.fmean(run.validation_accuracy or 0.0 for run in group.runs)
    )


def _group(runs: Iterable[Run]) -> Group:
    return Group(tuple(sorted(runs, key=lambda run: run.config.seed)))


def _cost_summary(cost: Cost) -> CostSummary:
    if not cost.seconds:
        return CostSummary(cost, None, None)
    ratios = [norm / copy for norm, copy in zip(cost.seconds, cost.copy_seconds, strict=True)]
    return CostSummary(cost, Quantiles.of(ratios), Quantiles.of(cost.seconds))


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
