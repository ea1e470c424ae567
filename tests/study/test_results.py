import json

import pytest

from normkit.study.results import SCHEMA, load

from .conftest import make_comparison


def test_json_brings_back_what_was_saved(tmp_path, comparison):
    path = tmp_path / "saved.json"
    path.write_text(comparison.to_json(table=[1, 2]), encoding="utf-8")
    assert load(path) == comparison
    assert json.loads(path.read_text())["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "not JSON"),
        ("[1]", "no 'schema'"),
        ("{}", "no 'schema'"),
        ('{"schema": "other/1"}', "schema must be"),
        (f'{{"schema": "{SCHEMA}"}}', "damaged or incomplete"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load(path)


@pytest.mark.parametrize(
    "damage", [lambda c: c["runs"][0].pop("config"), lambda c: c["runs"][0].update(extra=1)]
)
def test_a_damaged_file_is_refused(tmp_path, damage):
    content = json.loads(make_comparison().to_json())
    damage(content)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="damaged or incomplete"):
        load(path)
