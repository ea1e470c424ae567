import dataclasses

import pytest
import torch

from normkit.study.data import digits
from normkit.study.models import ARCHITECTURES, NORMS, build
from normkit.study.results import RunConfig
from normkit.study.train import train

CONFIG = RunConfig("architecture", "MLP", "batch", 0, 0.01, 50, 500)


@pytest.fixture(autouse=True)
def _one_thread():
    """As in the workers of `normkit compare`."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_parts_share_no_image_and_are_standardised():
    data = digits(0)
    parts = [data.train, data.validation, data.test]
    assert [len(part.labels) for part in parts] == [1000, 297, 500]
    assert float(data.train.images.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(data.train.images.std()) == pytest.approx(1.0, abs=1e-5)
    # Every image of the whole set is somewhere: 1,797 of them, all classes in each part.
    assert all(part.labels.unique().numel() == 10 for part in parts)
    images = {image.numpy().round(3).tobytes() for part in parts for image in part.images}
    assert len(images) == 1797


def test_the_split_depends_on_the_seed_alone():
    assert torch.equal(digits(3).test.labels, digits(3).test.labels)
    assert not torch.equal(digits(3).test.labels, digits(4).test.labels)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("norm", NORMS)
def test_every_network_gives_logits_and_gradients(architecture, norm):
    torch.manual_seed(0)
    model = build(architecture, norm)
    logits = model(torch.randn(4, 8, 8))
    assert logits.shape == (4, 10)
    (logits * torch.randn(4, 10)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    names = [type(module).__name__ for module in model.modules()]
    kind = {"batch": "BatchNorm", "layer": "LayerNorm", "rms": "RMSNorm", "none": None}[norm]
    found = {name for name in names if name.startswith(("BatchNorm", "LayerNorm", "RMSNorm"))}
    assert all(name.startswith(kind) for name in found) if kind else not found
    assert bool(found) == (kind is not None)


@pytest.mark.parametrize(("architecture", "norm"), [("LSTM", "batch"), ("MLP", "group")])
def test_an_unknown_network_is_refused_by_name(architecture, norm):
    with pytest.raises(ValueError, match="must be one of"):
        build(architecture, norm)


def test_a_run_is_a_pure_function_of_its_config():
    first = train(CONFIG)
    torch.randn(7)  # the state of the global generator must not matter
    assert train(CONFIG) == first
    assert train(dataclasses.replace(CONFIG, seed=1)) != first


def test_a_run_learns():
    longer = train(dataclasses.replace(CONFIG, samples=2000))
    assert longer.test_accuracy > 0.85
    assert longer.curve[0].samples == 500
    assert longer.curve[-1].train_loss < longer.curve[0].train_loss


@pytest.mark.parametrize(
    ("norm", "differs"), [("batch", True), ("layer", False), ("rms", False), ("none", False)]
)
def test_only_some_norms_differ_between_the_modes(norm, differs):
    run = train(dataclasses.replace(CONFIG, norm=norm))
    assert (run.batch_mode_shift > 0) == differs


def test_one_value_per_channel_is_recorded_not_hidden():
    streaming = RunConfig("streaming", "MLP", "batch", 0, 0.001, 1, 20)
    run = train(streaming)
    assert "per channel" in run.error
    assert run.test_accuracy is None
    # A CNN has more values per channel than one, and trains.
    assert train(dataclasses.replace(streaming, architecture="CNN")).error is None
    assert train(dataclasses.replace(streaming, norm="layer")).error is None


def test_another_value_error_is_raised(monkeypatch):
    def broken(*_):
        raise ValueError("something else")

    monkeypatch.setattr("normkit.study.train.F.cross_entropy", broken)
    with pytest.raises(ValueError, match="something else"):
        train(dataclasses.replace(CONFIG, batch_size=1, samples=2, architecture="CNN"))
