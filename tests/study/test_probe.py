import pytest
import torch
from torch import nn

from normkit.study.probe import probe, probe_norms

IMAGES = ("batch", "channel", "height", "width"), (4, 6, 3, 5)


@pytest.mark.parametrize(
    ("layer", "training", "shared", "grouped", "separate"),
    [
        (nn.BatchNorm2d(6), True, ("batch", "height", "width"), (), ("channel",)),
        (nn.BatchNorm2d(6), False, (), (), ("batch", "channel", "height", "width")),
        (nn.InstanceNorm2d(6), True, ("height", "width"), (), ("batch", "channel")),
        (nn.GroupNorm(2, 6), True, ("height", "width"), ("channel",), ("batch",)),
        (nn.LayerNorm((6, 3, 5)), False, ("channel", "height", "width"), (), ("batch",)),
        (nn.RMSNorm((3, 5)), True, ("height", "width"), (), ("batch", "channel")),
        (nn.Identity(), True, (), (), ("batch", "channel", "height", "width")),
    ],
)
def test_finds_the_axes_of_known_layers(layer, training, shared, grouped, separate):
    found = probe(layer, "any", *IMAGES, training)
    assert (found.shared, found.grouped, found.separate) == (shared, grouped, separate)


class OverWidth(nn.Module):
    """Subtracts the mean along the width and leaves the scale: no layer of a library."""

    def forward(self, x):
        return x - x.mean(-1, keepdim=True)


def test_finds_what_a_hand_made_layer_does():
    found = probe(OverWidth(), "any", *IMAGES, True)
    assert found.shared == ("width",)
    assert (found.centred, found.scaled) == (True, False)


def test_tells_centring_from_scaling():
    layer_norm = probe(nn.LayerNorm(5), "any", *IMAGES, True)
    rms_norm = probe(nn.RMSNorm(5), "any", *IMAGES, True)
    assert (layer_norm.centred, layer_norm.scaled) == (True, True)
    assert (rms_norm.centred, rms_norm.scaled) == (False, True)


def test_leaves_the_layer_as_it_was():
    layer = nn.BatchNorm2d(6)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    probe(layer, "any", *IMAGES, True)
    assert layer.training
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_refuses_an_axis_of_one_element():
    with pytest.raises(ValueError, match="length 2 or more"):
        probe(nn.Identity(), "any", ("batch", "feature"), (4, 1), True)


def test_probes_the_three_norms_in_both_modes():
    found = {(one.norm, one.training): one for one in probe_norms(("none", "batch", "layer", "rms"))}
    assert set(found) == {(norm, mode) for norm in ("batch", "layer", "rms") for mode in (True, False)}
    assert found["batch", True].shared == ("batch", "height", "width")
    assert found["batch", False].shared == ()
    assert found["layer", False].shared == found["rms", False].shared == ("feature",)
