"""Options of the terminal that arrive where they are used, and the schema of plans."""

import json
import operator
import re
from pathlib import Path

import pytest
from likeness.cli import build_parser, main
from likeness.comparison import cli as comparison
from likeness.comparison.arguments import encoder_files_from_args
from likeness.comparison.plan_file import bundled_plans, find_plan
from likeness.demo import pretrain, quality, quality_table


@pytest.mark.parametrize("command", ["train", "draw", "compare"])
def test_options_had_no_text_in_the_help_of_their_command(command):
    (commands,) = build_parser()._subparsers._group_actions
    options = [one for one in commands.choices[command]._actions if one.option_strings]
    assert not [one.dest for one in options if not one.help]


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--sweep"], "first", quality.PEOPLE["sweep"]),
        ([], "first", quality.PEOPLE["quality"]),
        (["--people", "7"], "people", 7),
        (["--seeds", "4"], "seeds", 4),
        (["--rows", "base", "tiny"], "rows", ["base", "tiny"]),
        ([], "rows", quality.ROWS),
    ],
)
def test_an_option_of_demo_quality_arrives(monkeypatch, capsys, words, field, value):
    given = []
    monkeypatch.setattr(quality, "run", given.append)
    monkeypatch.setattr(quality, "asked_lines", lambda options: [])
    monkeypatch.setattr(quality_table, "table", lambda lines: "")
    assert main(["demo", "quality", *words]) == 0
    assert getattr(given[0], field) == value


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--samples", "900"], "samples", 900),
        (["--minutes", "1.5"], "minutes", 1.5),
        ([], "minutes", float("inf")),
    ],
)
def test_an_option_of_demo_pretrain_arrives(monkeypatch, capsys, words, field, value):
    given = []
    monkeypatch.setattr(pretrain, "pretrain", lambda stage, options: given.append(options))
    assert main(["demo", "pretrain", "--device", "cpu", *words]) == 0
    assert getattr(given[0], field) == value


@pytest.mark.parametrize("option", ["clip", "clip_text", "dino"])
def test_an_encoder_given_to_compare_arrives(monkeypatch, option):
    given = []
    monkeypatch.setattr(comparison, "_compare", lambda found: given.append(found) or 0)
    flag = f"--{option.replace('_', '-')}"
    assert main(["compare", "study", "--base", "base.safetensors", flag, "encoder"]) == 0
    field = {"clip": "clip_image"}.get(option, option)
    assert getattr(encoder_files_from_args(given[0]), field) == Path("encoder")


def test_an_encoder_that_is_not_there_is_told_before_training(capsys, tmp_path):
    words = ["compare", "study", "--base", "base.safetensors", "--dino", str(tmp_path / "gone")]
    assert main(words) == 1
    assert re.search("--dino: .* does not exist", capsys.readouterr().err)


# plan --schema


@pytest.fixture
def schema(capsys):
    assert main(["plan", "--schema"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", bundled_plans())
def test_a_bundled_plan_is_valid_by_the_schema_that_plan_prints(schema, name):
    plan = json.loads(find_plan(name).to_json())
    assert fits(plan, schema, schema)
    assert not fits({**plan, "unknown": 1}, schema, schema)
    assert not fits({**plan, "rows": "base"}, schema, schema)


TYPES = {
    "array": list, "boolean": bool, "null": type(None), "object": dict, "string": str,
}  # fmt: skip
NUMBERS = {"integer": int, "number": (int, float)}
LIMITS = {
    "minimum": operator.ge, "exclusiveMinimum": operator.gt, "maximum": operator.le,
    "exclusiveMaximum": operator.lt, "multipleOf": lambda value, by: value % by == 0,
}  # fmt: skip
LENGTHS = {
    "minLength": operator.ge, "minItems": operator.ge, "maxLength": operator.le,
    "maxItems": operator.le,
}  # fmt: skip


def fits(value, schema, root):
    """Whether a value is valid by a JSON schema, by the words that pydantic's schemas have."""
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    one_of = schema.get("anyOf", schema.get("oneOf"))
    checks = [
        not one_of or any(fits(value, part, root) for part in one_of),
        value in schema.get("enum", [value]) and value == schema.get("const", value),
        "type" not in schema or is_a(value, schema["type"]),
    ]
    if not all(checks):
        return False
    if isinstance(value, dict):
        return has_fitting_fields(value, schema, root)
    if isinstance(value, str | list):
        limits, size = LENGTHS, len(value)
    else:
        limits, size = LIMITS, value
    if isinstance(value, list) and "items" in schema:
        return all(fits(item, schema["items"], root) for item in value)
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return False
    return all(check(size, schema[word]) for word, check in limits.items() if word in schema)


def is_a(value, kind):
    if kind in NUMBERS:
        return isinstance(value, NUMBERS[kind]) and not isinstance(value, bool)
    return isinstance(value, TYPES[kind])


def has_fitting_fields(value, schema, root):
    fields, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, part in value.items():
        wanted = fields.get(name, others)
        if wanted is False or (wanted is not True and not fits(part, wanted, root)):
            return False
    return set(schema.get("required", ())) <= set(value)
