"""What `import normkit` costs: nothing of the extras is imported by it."""

import json

from tests.process import python

EXTRAS = ["rich", "matplotlib", "sklearn", "triton", "onnxruntime", "jinja2", "pandas", "PIL"]


def test_no_extra_is_imported():
    code = f"import json, sys, normkit; print(json.dumps([n for n in {EXTRAS} if n in sys.modules]))"
    already = f"import json, sys, torch, numpy; print(json.dumps([n for n in {EXTRAS} if n in sys.modules]))"
    assert json.loads(python("-c", code).stdout) == json.loads(python("-c", already).stdout) == []


def test_neither_study_nor_bench_nor_commands_are_imported():
    code = (
        "import json, sys, normkit; print(json.dumps([n for n in sys.modules if n.startswith('normkit.')]))"
    )
    imported = json.loads(python("-W", "error", "-c", code).stdout)
    assert "normkit.functional" in imported
    assert [n for n in imported if n.split(".")[1] in ("cli", "study", "bench")] == []
