"""A user's mistakes: the error each gives, and that nothing was changed by then."""

import re

import pytest
import torch

import normkit as nk

from .bad_input import BATCH_ROWS, LAYER, RMS, TABLE, X, batch_norm, layer_norm, rms_norm, shown


def test_there_are_more_than_ten_kinds_of_mistake_for_each_function():
    for table in (LAYER, RMS, BATCH_ROWS):
        assert len({message for _, _, message in table}) > 10


def with_gradients(changed):
    """The same arguments, every tensor that can requiring its gradient."""
    return {
        name: value.clone().requires_grad_()
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.layout == torch.strided
        else value
        for name, value in changed.items()
    }


def refused(call, error, message):
    with pytest.raises((Exception,)) as caught:
        call()
    assert type(caught.value) is error, repr(caught.value)
    assert re.search(message, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(("function", "changed", "error", "message"), TABLE, ids=shown)
def test_mistakes(function, changed, error, message):
    refused(lambda: function(**changed), error, message)
    with torch.no_grad():
        refused(lambda: function(**changed), error, message)
    weight = torch.ones(4 if function is batch_norm else 3)
    wanting = with_gradients({"input": X, "weight": weight, **changed})
    for name in ("running_mean", "running_var"):
        if name in changed:
            wanting[name] = changed[name]
    refused(lambda: function(**wanting), error, message)


@pytest.mark.parametrize("function", [layer_norm, rms_norm, batch_norm])
def test_without_the_mistake_there_is_no_error(function):
    assert function().shape == X.shape
    assert function(eps=0).shape == X.shape


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(("changed", "error", "message"), BATCH_ROWS, ids=shown)
def test_running_statistics_are_untouched(changed, error, message, grad):
    mean, var = torch.linspace(-1, 1, 4), torch.linspace(0.5, 2, 4)
    before = mean.clone(), var.clone()
    arguments = {"running_mean": mean, "running_var": var, "weight": torch.ones(4), **changed}
    if grad:
        arguments["weight"] = with_gradients(arguments)["weight"]
    refused(lambda: batch_norm(**arguments), error, message)
    assert torch.equal(mean, before[0])
    assert torch.equal(var, before[1])


LAYERS = [
    (nk.BatchNorm1d, torch.ones(1, 4), ValueError, "input must have more than one value per channel"),
    (nk.BatchNorm1d, torch.ones(3, 5), ValueError, r"running_mean must .* \(5,\), got \(4,\)"),
    (nk.BatchNorm1d, torch.ones(3, 4).int(), TypeError, "input must be float64.* got int32"),
    (nk.BatchNorm1d, torch.ones(3, 4, 2, 2), ValueError, "expected 2D or 3D input"),
    (nk.BatchNorm2d, torch.ones(3, 4), ValueError, "expected 4D input"),
    (nk.BatchNorm2d, torch.ones(1, 4, 1, 1), ValueError, "input must have more than one value per channel"),
    (nk.BatchNorm2d, torch.ones(2, 3, 2, 2), ValueError, r"running_mean must .* \(3,\), got \(4,\)"),
    (nk.BatchNorm3d, torch.ones(2, 4, 2, 2), ValueError, "expected 5D input"),
]


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(("layer", "x", "error", "message"), LAYERS)
def test_a_layers_statistics_are_untouched(layer, x, error, message, momentum):
    layer = layer(4, momentum=momentum)
    before = {name: t.clone() for name, t in layer.state_dict().items()}
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            refused(lambda: layer(x), error, message)
    for name, t in layer.state_dict().items():
        assert torch.equal(t, before[name]), name


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda n: setattr(n, "weight", torch.nn.Parameter(torch.ones(5))), ValueError, "weight must"),
        (lambda n: setattr(n, "bias", torch.nn.Parameter(torch.ones(3))), ValueError, "bias must"),
        (
            lambda n: setattr(n, "running_var", torch.ones(4, dtype=torch.int64)),
            TypeError,
            "running_var must",
        ),
        (lambda n: setattr(n, "running_var", torch.ones(5)), ValueError, "running_var must"),
        (lambda n: setattr(n, "eps", -1.0), ValueError, "eps must"),
        (lambda n: setattr(n, "eps", "x"), TypeError, "eps must"),
        (lambda n: setattr(n, "momentum", "x"), TypeError, "momentum must"),
        (lambda n: setattr(n, "num_batches_tracked", torch.zeros(1)), TypeError, "num_batches_tracked must"),
        (
            lambda n: setattr(n, "num_batches_tracked", torch.tensor([1, 2])),
            ValueError,
            "num_batches_tracked must",
        ),
    ],
)
def test_a_damaged_layer_changes_nothing(damage, error, message):
    layer = nk.BatchNorm1d(4)
    damage(layer)
    before = {name: t.clone() for name, t in layer.state_dict().items()}
    refused(lambda: layer(torch.randn(3, 4)), error, message)
    for name, t in layer.state_dict().items():
        assert torch.equal(t, before[name]), name


def test_an_empty_batch_is_not_a_single_value():
    refused(
        lambda: nk.functional.batch_norm(torch.ones(2, 0), None, None, training=True, momentum="x"),
        TypeError,
        "momentum must",
    )


def test_unknown_eps_mode_of_a_layer():
    with pytest.raises(ValueError, match="eps_mode must be 'inside' or 'outside', got 'around'"):
        nk.RMSNorm(4, eps_mode="around")


@pytest.mark.parametrize("layer", [nk.LayerNorm(4), nk.RMSNorm(4)])
def test_row_layers_name_the_argument(layer):
    refused(lambda: layer(torch.ones(3, 5)), ValueError, r"normalized_shape must .* got \(4,\) .* \(3, 5\)")
    refused(lambda: layer(torch.ones(3, 4).long()), TypeError, "input must be .* got int64")
    refused(lambda: layer([1.0]), TypeError, "input must be a torch.Tensor, got list")
