"""The examples in docstrings run, and every public name is documented."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import normkit as nk

APART = ("normkit.study", "normkit.bench", "normkit.cli")  # with tests of their own
MODULES = [
    m.name
    for m in pkgutil.walk_packages(nk.__path__, "normkit.")
    if not m.name.startswith(APART) and not m.name.endswith("._core")
]
# Where a user looks for an example.
EXAMPLES = [
    "normkit.functional",
    "normkit.layers.batch_norm",
    "normkit.layers.layer_norm",
    "normkit.layers.rms_norm",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted > 0 or name not in EXAMPLES


@pytest.mark.parametrize("name", nk.__all__)
def test_public_names_are_documented(name):
    value = getattr(nk, name)
    if isinstance(value, nk.Recipe):
        assert inspect.getdoc(nk.Recipe)
        return
    own = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    assert own
    assert own.strip()


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm", "rms_norm"])
def test_functions_say_what_they_take_and_raise(name):
    own = getattr(nk.functional, name).__doc__
    for word in ("Args:", "Returns:", "Raises:", "ValueError", "TypeError", ">>> ", "https://arxiv.org/abs/"):
        assert word in own, word
    for parameter in inspect.signature(getattr(nk.functional, name)).parameters:
        assert f"{parameter}: " in own, parameter


def test_all_is_what_is_public():
    public = {n for n, v in vars(nk).items() if not n.startswith("_") and not inspect.ismodule(v)}
    modules = {"functional", "reference"}
    assert set(nk.__all__) == public | modules


@pytest.mark.parametrize("name", MODULES)
def test_every_public_thing_of_every_module_is_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for thing, value in vars(module).items():
        mine = getattr(value, "__module__", None) == name
        if not thing.startswith("_") and mine and (inspect.isclass(value) or inspect.isfunction(value)):
            assert inspect.getdoc(value), f"{name}.{thing}"


def test_the_readme_runs(capsys):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    found = {}
    exec(example, found)
    assert found["y"].shape == (16, 64, 32, 32)
    assert "RMSNorm((64,), eps=None, elementwise_affine=True, bias=True, eps_mode='outside') cpu: " in (
        capsys.readouterr().out
    )
