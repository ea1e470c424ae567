import dataclasses

import pytest

from normkit.study.summary import summarise
from normkit.study.table import build_table, headlines

from .conftest import make_comparison, make_cost, make_run


def rows_of(comparison):
    return {row.key: row for row in build_table(comparison, summarise(comparison))}


def replace_runs(comparison, change):
    return dataclasses.replace(comparison, runs=tuple(change(run) for run in comparison.runs))


def values(row, label):
    return next(line.values for line in row.lines if line.label == label)


def test_axes_come_from_the_probe(comparison):
    row = rows_of(comparison)["axes"]
    assert row.verdicts == {"batch": "batch, height, width", "layer": "feature", "rms": "feature"}
    assert values(row, "each of them is")["rms"] == "scaled, not centred"
    assert values(row, "in inference")["batch"] == "none: each element for itself"
    grouped = dataclasses.replace(comparison.axes[0], shared=("height",), grouped=("channel",))
    changed = dataclasses.replace(comparison, axes=(grouped, *comparison.axes[1:]))
    assert rows_of(changed)["axes"].verdicts["batch"] == "height, groups of channel"


def test_cost_ranks_norms_whose_ranges_lie_apart(comparison):
    row = rows_of(comparison)["cost"]
    assert row.verdicts["batch"] == "dearest"
    # 4.00 and 4.02 differ in every sample, but their ratios to the copy have no spread here.
    assert row.verdicts["layer"] == "cheapest"
    assert row.verdicts["rms"] == "in between"
    assert values(row, "fwd+bwd, normkit")["batch"] == "9.00x [9.00, 9.00]"


def test_cost_sees_no_difference_where_ranges_overlap(comparison):
    def blur(cost):
        spread = tuple(0.001 * factor for factor in (2.0, 4.0, 9.0, 20.0))
        return dataclasses.replace(cost, seconds=spread)

    blurred = dataclasses.replace(comparison, costs=tuple(map(blur, comparison.costs)))
    assert set(rows_of(blurred)["cost"].verdicts.values()) == {"no difference seen"}


def test_cost_names_pytorchs_rank_where_it_differs(comparison):
    def turn(cost):
        dear = cost.implementation == "torch" and cost.norm == "rms"
        return make_cost("rms", "torch", cost.backward, 30.0, shape=cost.shape) if dear else cost

    turned = dataclasses.replace(comparison, costs=tuple(map(turn, comparison.costs)))
    assert rows_of(turned)["cost"].verdicts["rms"] == "in between (PyTorch's own: dearest)"


def test_cost_of_a_wrong_result_is_not_shown(comparison):
    def spoil(cost):
        wrong = cost.implementation == "normkit" and cost.norm == "rms"
        return (
            make_cost("rms", "normkit", cost.backward, 1.0, shape=cost.shape, wrong=True) if wrong else cost
        )

    row = rows_of(dataclasses.replace(comparison, costs=tuple(map(spoil, comparison.costs))))["cost"]
    assert row.verdicts["rms"].startswith("not timed")
    assert values(row, "fwd+bwd, normkit")["rms"] == "wrong result, not timed"


def test_share_of_copy_is_a_ratio_of_rates(comparison):
    # Five tensors' worth of bytes in nine times the time of a copy, which moves two: 2.5 / 9.
    assert "28%" in values(rows_of(comparison)["cost"], "rate, fwd+bwd, normkit")["batch"]


def test_batch_size_verdict_follows_the_fall(comparison):
    row = rows_of(comparison)["batch size"]
    assert row.verdicts["batch"] == "falls in small batches: MLP; no training one at a time: MLP"
    assert row.verdicts["layer"] == "no fall in small batches seen"
    assert values(row, "MLP, one at a time")["batch"] == "ValueError: one value per channel"
    assert values(row, "MLP, batch 2")["batch"] == "60.0 ± 0.2 %"


def test_batch_size_verdict_is_not_tied_to_a_norm(comparison):
    def swap(run):
        other = {"batch": "rms", "rms": "batch"}.get(run.config.norm, run.config.norm)
        return dataclasses.replace(run, config=dataclasses.replace(run.config, norm=other))

    row = rows_of(replace_runs(comparison, swap))["batch size"]
    assert row.verdicts["rms"].startswith("falls in small batches: MLP")
    assert row.verdicts["batch"] == "no fall in small batches seen"


def test_use_names_the_networks_where_a_norm_is_among_the_best(comparison):
    row = rows_of(comparison)["use"]
    assert row.verdicts == {"batch": "CNN and MLP*", "layer": "MLP*", "rms": "MLP*", "none": "MLP"}


def test_use_names_none_where_all_are_beaten(comparison):
    def spoil(run):
        beaten = run.config.norm == "rms" and run.config.experiment == "architecture"
        return dataclasses.replace(run, test_accuracy=0.3) if beaten else run

    assert rows_of(replace_runs(comparison, spoil))["use"].verdicts["rms"] == "nowhere among the best"


def test_the_learning_rate_is_chosen_on_validation_not_on_test(comparison):
    def tempt(run):
        low = run.config.learning_rate == 0.001 and run.config.experiment == "architecture"
        return dataclasses.replace(run, test_accuracy=0.999) if low else run

    chosen = summarise(replace_runs(comparison, tempt)).architecture
    assert {group.learning_rate for group in chosen.values()} == {0.01}


@pytest.mark.parametrize(("train", "verdict"), [(0.96, "smaller gap: CNN"), (1.0, "no difference seen")])
def test_gap_is_compared_with_no_norm(comparison, train, verdict):
    def change(run):
        chosen = run.config.norm == "layer" and run.config.architecture == "CNN"
        return dataclasses.replace(run, train_accuracy=train) if chosen else run

    assert rows_of(replace_runs(comparison, change))["gap"].verdicts["layer"] == verdict


def test_gap_may_be_larger_too(comparison):
    def change(run):
        worse = run.config.norm == "rms" and run.config.experiment == "architecture" and not run.error
        return dataclasses.replace(run, test_accuracy=run.test_accuracy - 0.2) if worse else run

    assert rows_of(replace_runs(comparison, change))["gap"].verdicts["rms"] == "larger gap: CNN and MLP"


def test_modes_are_identical_only_if_measured_so(comparison):
    row = rows_of(comparison)["mode"]
    assert row.verdicts["layer"] == row.verdicts["none"] == "outputs identical"
    assert row.verdicts["batch"].startswith("outputs differ")

    def shift(run):
        return dataclasses.replace(run, batch_mode_shift=1e-9) if run.config.norm == "layer" else run

    assert rows_of(replace_runs(comparison, shift))["mode"].verdicts["layer"].startswith("outputs differ")


def test_one_seed_gives_figures_but_no_verdicts():
    single = make_comparison(seeds=1)
    rows = rows_of(single)
    assert rows["use"].verdicts["batch"] == rows["gap"].verdicts["batch"] == "cannot be told from one seed"
    assert rows["batch size"].verdicts["layer"] == "cannot be told from one seed"
    assert values(rows["use"], "MLP")["layer"] == "94.8 %"
    assert not any(
        "Highest" in sentence or "loses" in sentence for sentence in headlines(single, summarise(single))
    )


def test_headlines_follow_the_figures(comparison):
    text = " ".join(headlines(comparison, summarise(comparison)))
    assert "BatchNorm in the CNN" in text
    assert "In the MLP no norm made a difference" in text
    assert "BatchNorm loses 35.0 points in the MLP" in text
    assert "no loss was seen for LayerNorm and RMSNorm" in text
    assert "BatchNorm cannot train (ValueError)" in text
    assert "unsteady" not in text


def test_headlines_warn_of_unsteady_timings(comparison):
    def disturb(cost):
        return dataclasses.replace(cost, copy_seconds=(0.001, 0.001, 0.009, 0.009))

    disturbed = dataclasses.replace(comparison, costs=tuple(map(disturb, comparison.costs)))
    assert "unsteady" in " ".join(headlines(disturbed, summarise(disturbed)))


def test_speed_is_the_first_checkpoint_at_the_goal():
    comparison = make_comparison()
    row = rows_of(comparison)["use"]
    assert values(row, "MLP, images to 90%")["layer"] == "1,000"
    never = replace_runs(comparison, lambda run: dataclasses.replace(run, curve=run.curve[:1]))
    assert values(rows_of(never)["use"], "MLP, images to 90%")["layer"] == "not reached"


def test_a_made_run_keeps_its_error():
    assert make_run("streaming", "MLP", "batch", 0, error="no").test_accuracy is None
