"""What passes for right."""

import pytest
import torch

from normkit.bench import check, operands
from normkit.bench.cases import Case

CASE = Case("layer_norm", (64, 32), "forward+backward")


@pytest.fixture
def exact():
    return dict(operands.exact(CASE))


def test_the_exact_result_is_right(exact):
    assert check.worst_error(CASE, exact, exact) == 0


@pytest.mark.parametrize("name", ["output", "grad_input", "grad_weight", "grad_bias"])
def test_each_result_counts(exact, name):
    off = {**exact, name: exact[name] * 1.001}
    assert check.worst_error(CASE, off, exact) > 1
    broken = exact[name].clone()
    broken.view(-1)[-1] = torch.nan
    assert check.worst_error(CASE, {**exact, name: broken}, exact) == check.WORST
    assert check.worst_error(CASE, {**exact, name: exact[name][:1]}, exact) == check.WORST
    missing = {key: value for key, value in exact.items() if key != name}
    assert check.worst_error(CASE, missing, exact) == check.WORST


def test_an_error_is_in_units_of_what_passes(exact):
    output = exact["output"].clone()
    output.view(-1)[7] += 0.5 * check.tolerance(CASE, "output") * output.abs().max()
    assert check.worst_error(CASE, {**exact, "output": output}, exact) == pytest.approx(0.5)


def test_a_sum_in_the_data_s_own_dtype_passes_and_a_wrong_one_does_not():
    case = Case("layer_norm", (8192, 4), "forward+backward", "bfloat16")
    wanted = operands.exact(case)["grad_bias"]
    upstream = operands.make_operands(case).upstream
    honest = torch.zeros(4, dtype=torch.bfloat16)
    for row in upstream:
        honest += row
    error = (honest.double() - wanted).abs().max() / wanted.abs().max()
    allowed = check.tolerance(case, "grad_bias")
    assert 5 * torch.finfo(torch.bfloat16).eps < error < allowed
    assert allowed < 1  # a gradient of zero is wrong


@pytest.mark.parametrize(
    ("op", "direction", "names"),
    [
        ("rms_norm", "forward", ["output"]),
        ("rms_norm", "backward", ["grad_input", "grad_weight"]),
        ("layer_norm", "backward", ["grad_input", "grad_weight", "grad_bias"]),
        ("batch_norm_training", "forward", ["output", "running_mean", "running_var"]),
        ("batch_norm_inference", "forward", ["output"]),
        (
            "batch_norm_training",
            "forward+backward",
            ["output", "grad_input", "grad_weight", "grad_bias", "running_mean", "running_var"],
        ),
    ],
)
def test_what_has_to_be_shown(op, direction, names):
    assert list(operands.result_names(Case(op, (2, 3, 4), direction))) == names


def test_memory_formats_and_directions_share_the_exact_result():
    first = operands.exact(Case("batch_norm_training", (2, 3, 4, 4), "forward"))
    again = operands.exact(Case("batch_norm_training", (2, 3, 4, 4), "forward+backward", channels_last=True))
    assert first is again
