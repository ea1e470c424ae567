"""The examples of the docstrings and the checks of the derivation pages run."""

import doctest
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from normkit import reference

PAGES = Path(__file__).parents[2] / "docs" / "derivations"
NORMS = ["batch_norm", "layer_norm", "rms_norm"]


@pytest.mark.parametrize("name", ["batch", "layer", "rms"])
def test_examples(name):
    result = doctest.testmod(import_module(f"normkit.reference.{name}"))
    assert result.attempted >= 2
    assert result.failed == 0


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["{}", "{}_backward"])
def test_every_function_has_an_example_and_names_its_paper(norm, name):
    docstring = inspect.getdoc(getattr(reference, name.format(norm)))
    assert ">>> " in docstring
    assert re.search(r"arXiv:\d{4}\.\d{5}", docstring)


def test_every_public_name_is_documented():
    for name in reference.__all__:
        assert inspect.getdoc(getattr(reference, name)), name


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("norm", NORMS)
def test_derivation(norm):
    source = "\n".join(blocks((PAGES / f"{norm}.md").read_text(encoding="utf-8")))
    assert f"{norm}_backward" in source
    assert "assert " in source
    exec(compile(source, f"{norm}.md", "exec"), {"__name__": norm})
