"""The oracle shares no code with what it judges: it knows NumPy and the recipe, and nothing else."""

import ast
import sys
from pathlib import Path

import pytest

from normkit import reference

FILES = sorted(Path(reference.__file__).parent.glob("*.py"))
ALLOWED = {"numpy", "normkit.recipe", "normkit.reference"}


def imported_modules(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports in full"
            yield node.module


def is_allowed(module):
    parts = module.split(".")
    return parts[0] in sys.stdlib_module_names or bool({parts[0], ".".join(parts[:2])} & ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_imports(path):
    assert [module for module in imported_modules(path.read_text()) if not is_allowed(module)] == []


def test_the_check_sees_a_stranger():
    strangers = "import torch\nfrom normkit.ops import x\nimport numpy.typing\nimport math"
    assert [m for m in imported_modules(strangers) if not is_allowed(m)] == ["torch", "normkit.ops"]
