import json
from dataclasses import replace

import pytest
from likeness.comparison.compare import (
    ComparisonFiles,
    expand_patterns,
    find_adapter,
    train_missing,
)
from likeness.comparison.errors import ComparisonError
from likeness.comparison.matrix import read_plan
from likeness.comparison.plan_file import (
    Row,
    bundled_plans,
    find_plan,
    plan_file_from_data,
    with_adapters,
    with_recipes,
    without_pose,
)
from likeness.comparison.prompts import bundled_set
from likeness.comparison.row_adapters import read_row_adapter
from likeness.trainers.errors import MissingPackage, MissingRequirements, RecipeError, RunCancelled
from likeness.trainers.presets import preset

BASE = {"name": "base"}


def plan(*rows, **fields):
    return plan_file_from_data({"rows": [*rows], **fields})


@pytest.mark.parametrize("name", bundled_plans())
def test_a_bundled_plan_can_be_run(name):
    found = find_plan(name)
    assert found.name == name
    digests = {row.name: str(number) * 64 for number, row in enumerate(found.rows) if row.trained}
    assert found.matrix(digests).cells()
    for row in found.rows:
        assert (found.recipe_of(row) is None) == (not row.trained)


def test_the_study_has_its_eight_rows_and_six_prompts():
    study = find_plan("study")
    made = study.matrix({row.name: "1" * 64 for row in study.rows if row.trained})
    assert made.rows() == (
        "base", "tiny", "standard", "standard_cnet", "lora-r1", "lora-r1_cnet", "lora-r4", "lora-r8"
    )  # fmt: skip
    assert made.columns() == tuple(prompt.key for prompt in bundled_set("study").prompts)
    assert (made.image.width, made.image.height, made.image.steps) == (768, 1024, 35)
    assert study.recipe_of(study.rows[2]) == preset("standard")


def test_the_prompt_set_with_class_is_the_study_with_its_class():
    both, study = bundled_set("study-with-class"), bundled_set("study")
    assert both.prompts == study.with_class().prompts and both.negative == study.negative


def test_changes_of_the_plan_come_before_those_of_the_row():
    found = plan(
        {"name": "r", "preset": "lora-r4", "changes": {"schedule": {"steps": 10}}},
        changes={"schedule": {"steps": 20, "batch_size": 2}, "seed": 7},
        token="zxw",
        class_word="dog",
    )
    recipe = found.recipe_of(found.rows[0])
    assert (recipe.schedule.steps, recipe.schedule.batch_size, recipe.seed) == (10, 2, 7)
    assert (recipe.subject.token, recipe.subject.class_word) == ("zxw", "dog")
    assert "zxw" in found.matrix({}).cells()[0].prompt


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"rows": []}, "rows"),
        ({"rows": [BASE], "prompt": "study"}, "prompt"),
        ({"rows": [BASE], "version": 2}, "version"),
        ({"rows": [{"name": "../x"}]}, "rows.0.name"),
        *(
            ({"rows": [{"name": "a", "adapter": name}]}, "rows.0.adapter")
            for name in ("../x.safetensors", "..", "", "C:x", "a\\b", "a\x00b", "x" * 256)
        ),
        ({"rows": [{"name": "a", "preset": "tiny", "adapter": "x"}]}, "exclude each other"),
        ({"rows": [{"name": "a", "changes": {"seed": 1}}]}, "changes need a preset"),
        ({"rows": [BASE, BASE]}, "two rows are called 'base'"),
        ({"rows": [BASE], "prompts": {"prompts": []}}, "prompts"),
        ({"rows": [BASE], "prompts": {"prompts": [{"key": "a", "text": "{colour}"}]}}, "{colour}"),
        ({"rows": [BASE], "draws": 0}, "draws"),
        ({"rows": [BASE], "prompts": "stduy"}, "no prompt set 'stduy': give a .txt file"),
        ({"rows": [BASE], "poses": "joga"}, "no pose set 'joga': give a .json file"),
        ({"rows": [BASE], "poses": [], "with_pose": "both"}, "add poses"),
        ([], "plan"),
    ],
)
def test_a_wrong_plan_names_what_is_wrong(data, message):
    with pytest.raises(ComparisonError) as error:
        plan_file_from_data(data)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"changes": {"subject": {"token": "ohwx"}}},
        {"rows": [{"name": "r4", "preset": "lora-r4", "changes": {"subject": {"token": "ohwx"}}}]},
        {"rows": [{"name": "r4", "recipe": {"subject": {"token": "ohwx"}}}]},
    ],
)
def test_another_token_than_the_plans_is_said_and_not_overridden(fields):
    rows = {"rows": [{"name": "r4", "preset": "lora-r4"}]}
    with pytest.raises(RecipeError, match="token 'ohwx', but the plan has 'sks'"):
        plan_file_from_data({**rows, **fields})
    same = plan_file_from_data({**rows, **fields, "token": "ohwx"})
    assert same.recipe_of(same.rows[0]).subject.token == "ohwx"


@pytest.mark.parametrize("token", ["<anna>", "_sks_", "sks*"])
def test_a_token_of_a_recipe_was_refused_in_a_plan(token):
    made = plan_file_from_data({"rows": [{"name": "r4", "preset": "lora-r4"}], "token": token})
    assert made.recipe_of(made.rows[0]).subject.token == token
    assert token in made.prompt_set().prompts[0].text


def test_ten_thousand_prompts_are_refused_by_number():
    prompts = [{"key": f"p{number}", "text": "a man"} for number in range(10_000)]
    with pytest.raises(ComparisonError, match="at most 1000"):
        plan(BASE, prompts={"prompts": prompts})


def test_a_wrong_recipe_is_found_before_anything_is_trained():
    with pytest.raises(RecipeError, match=r"schedule\.step\b"):
        plan({"name": "r", "preset": "lora-r4", "changes": {"schedule": {"step": 10}}})
    with pytest.raises(RecipeError, match="no preset 'lora-r9'"):
        plan({"name": "r", "preset": "lora-r9"})


def test_what_is_no_plan_is_named(tmp_path):
    with pytest.raises(ComparisonError, match="one of knowledge-check, miniature, study"):
        find_plan("stduy")
    with pytest.raises(ComparisonError, match="cannot be read"):
        find_plan(str(tmp_path / "gone.json"))
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ComparisonError, match="not JSON"):
        find_plan(str(tmp_path / "x.json"))


def test_a_plan_is_written_as_it_was_read():
    study = find_plan("study-scored")
    assert plan_file_from_data(json.loads(study.to_json())) == study
    changed = with_recipes(study, lambda recipe: recipe.changed(seed=9))
    again = plan_file_from_data(json.loads(changed.to_json()))
    assert again == changed and again.rows[2].with_pose == "both"
    assert again.recipe_of(again.rows[1]).seed == 9


def test_rows_are_left_out_and_added():
    rows = (BASE, {"name": "a", "with_pose": "both"}, {"name": "b", "with_pose": "with"})
    plain = without_pose(plan(*rows))
    assert [row.name for row in plain.rows] == ["base", "a"]
    assert not any(cell.with_pose for cell in plain.matrix({}).cells())
    more = with_adapters(plain, {"a": "x.safetensors", "mine": "y.safetensors"})
    assert [(row.name, row.adapter) for row in more.rows] == [
        ("base", None), ("a", None), ("mine", "y.safetensors"),
    ]  # fmt: skip
    with pytest.raises(ComparisonError, match="rows"):
        without_pose(plan({"name": "b", "with_pose": "with"}))


# From rows to adapters


def test_without_poses_no_row_has_one_and_one_must_stay():
    both = plan_file_from_data({"rows": [{"name": "base"}], "with_pose": "both"})
    plain = without_pose(with_adapters(both, {"new": "x.safetensors"}))
    assert plain.matrix({}).rows() == ("base", "new")
    posed = plan_file_from_data({"rows": [{"name": "base"}], "with_pose": "with"})
    with pytest.raises(ComparisonError, match="All rows of the plan have poses"):
        without_pose(posed)


def test_an_adapter_may_have_any_name_that_a_file_can_have():
    for name in ("add detail (1).safetensors", "アンナ.safetensors", f"{'x' * 90}.safetensors"):
        (row,) = with_adapters(plan(BASE), {"mine": name}).rows[1:]
        assert row.adapter == name


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "adapters"
    folder.mkdir()
    (folder / "x.safetensors").write_bytes(b"x")
    return ComparisonFiles(base=tmp_path / "base.safetensors", output=tmp_path, folders=(folder,))


def test_adapters_are_taken_as_given_or_found_by_their_name(files, tmp_path):
    given = ComparisonFiles(
        files.base, files.output, adapters={"r": files.folders[0] / "x.safetensors"}
    )
    assert find_adapter(Row(name="r", preset="tiny"), given) == given.adapters["r"]
    assert find_adapter(Row(name="a", adapter="x.safetensors"), files).name == "x.safetensors"
    assert find_adapter(Row(name="base"), files) is None
    with pytest.raises(ComparisonError, match=r"--adapter a=FILE"):
        find_adapter(Row(name="a", adapter="y.safetensors"), files)
    whole = ComparisonFiles(files.base, files.output, adapters={"r": files.folders[0]})
    assert find_adapter(Row(name="r"), whole) == files.folders[0], "a diffusers folder"
    assert read_row_adapter("r", files.folders[0], tmp_path).adapter == files.folders[0]
    gone = ComparisonFiles(files.base, files.output, adapters={"r": tmp_path / "gone.safetensors"})
    with pytest.raises(ComparisonError, match=r"is missing: .*gone\.safetensors"):
        find_adapter(Row(name="r"), gone)


@pytest.fixture
def epochs(files):
    """The files with three epochs of one training beside them."""
    for name in ("e-10", "e-9", "e[1]"):
        (files.folders[0] / f"{name}.safetensors").write_bytes(name.encode())
    (files.folders[0] / "e-notes.txt").touch()
    (files.folders[0] / "e-9 whole").mkdir()
    (files.folders[0] / "e-9 whole" / "model_index.json").touch()
    return files


def test_a_pattern_is_a_row_for_each_file_that_matches(epochs):
    row = {"name": "e", "adapter": "e-*", "strength_unet": 0.5, "with_pose": "without"}
    found = expand_patterns(plan(BASE, row), epochs)
    assert [(one.name, one.adapter) for one in found.rows] == [
        ("base", None),
        ("e_9-whole", "e-9 whole"),
        ("e_9", "e-9.safetensors"),
        ("e_10", "e-10.safetensors"),
    ]
    assert {(one.strength_unet, one.strength_text) for one in found.rows[1:]} == {(0.5, 1.0)}
    assert all(find_adapter(one, epochs).exists() for one in found.rows[1:])
    (one,) = expand_patterns(plan({"name": "e", "adapter": "e-1*"}), epochs).rows
    assert (one.name, one.adapter) == ("e", "e-10.safetensors")


def test_a_plan_without_patterns_is_kept(epochs):
    names = plan(BASE, {"name": "e", "adapter": "e[1].safetensors"})
    assert expand_patterns(names, epochs) == names
    (epochs.folders[0] / "e*").touch()
    exact = plan({"name": "e", "adapter": "e*"})
    assert expand_patterns(exact, epochs) == exact
    given = replace(epochs, adapters={"e": epochs.folders[0] / "x.safetensors"})
    assert expand_patterns(plan({"name": "e", "adapter": "e-*"}), given).rows[0].adapter == "e-*"


def test_a_pattern_that_matches_nothing_or_too_much_is_told(epochs):
    with pytest.raises(ComparisonError, match=r"The row r: no file in .*adapters matches 'f-9\*'"):
        expand_patterns(plan({"name": "r", "adapter": "f-9*"}), epochs)
    taken = plan({"name": "e_9", "adapter": "x.safetensors"}, {"name": "e", "adapter": "e-*"})
    with pytest.raises(ComparisonError, match="two rows are called 'e_9'"):
        expand_patterns(taken, epochs)
    for number in range(70):
        (epochs.folders[0] / f"many{number}.safetensors").touch()
    with pytest.raises(ComparisonError, match=r"'many\*' matches 70 files"):
        expand_patterns(plan({"name": "r", "adapter": "many*"}), epochs)


def test_the_terminal_reads_a_plan_with_patterns(epochs, tmp_path):
    from argparse import ArgumentParser

    from likeness.comparison.arguments import plan_from_args
    from likeness.comparison.cli import add_commands

    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"rows": [BASE, {"name": "e", "adapter": "e-?.safetensors"}]}))
    parser = ArgumentParser()
    add_commands(parser.add_subparsers())
    given = ["compare", str(path), "--base", "b", "--adapters", str(epochs.folders[0])]
    found = plan_from_args(parser.parse_args([*given, "--output", str(tmp_path)]))
    assert [row.adapter for row in found.rows] == [None, "e-9.safetensors"]


def never(recipes, places):
    assert not recipes, "nothing is to be trained"
    yield from ()


def test_rows_to_train_need_photographs(files):
    with pytest.raises(ComparisonError, match=r"--photos FOLDER\): r1, r4"):
        rows = ({"name": "r1", "preset": "lora-r1"}, {"name": "r4", "preset": "lora-r4"})
        train_missing(plan(*rows), files, never)
    (base,) = train_missing(plan(BASE), files, never)
    assert base.adapter is None


def test_a_missing_controlnet_is_said_before_the_first_row_is_trained(files, tmp_path):
    posed = plan({"name": "r", "preset": "miniature-lora-r1", "with_pose": "both"})
    given = {"base": files.base, "output": files.output, "photos": files.output}
    with pytest.raises(ComparisonError, match="--controlnet FILE"):
        train_missing(posed, ComparisonFiles(**given), never)
    with pytest.raises(ComparisonError, match=r"no ControlNet at .*gone\.safetensors"):
        train_missing(
            posed, ComparisonFiles(**given, controlnet=tmp_path / "gone.safetensors"), never
        )


def test_missing_packages_are_said_before_the_first_row_is_trained(files, monkeypatch):
    from likeness.trainers import packages

    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    given = ComparisonFiles(files.base, files.output, photos=files.output)
    rows = ({"name": "a", "preset": "miniature-lora-r1"}, {"name": "b", "preset": "lora-r1"})
    with pytest.raises(MissingPackage):
        train_missing(plan(*rows), given, never)


def test_missing_requirements_are_said_before_the_first_row_is_trained(files, monkeypatch):
    from likeness.trainers import packages

    def absent(name):
        raise packages.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.metadata, "version", absent)
    monkeypatch.setattr(packages, "find_spec", lambda name: name != "peft" or None)
    given = ComparisonFiles(files.base, files.output, photos=files.output)
    with pytest.raises(MissingRequirements, match=r"peft>=0\.18\.1 is not installed\. "):
        train_missing(plan({"name": "a", "preset": "miniature-lora-r1"}), given, never)


def test_a_stopped_training_ends_the_comparison(files, monkeypatch):
    from types import SimpleNamespace

    given = ComparisonFiles(files.base, files.output, photos=files.output)
    seen = []

    def stopped(recipes, places):
        for name, recipe in recipes.items():
            seen.append((name, recipe.method, places.runs))
            yield name, SimpleNamespace(stopped=True, steps=3, recipe=recipe)

    rows = [{"name": name, "preset": "miniature-lora-r4"} for name in ("a", "b")]
    with pytest.raises(RunCancelled, match="training of a was stopped after 3 of 200 steps"):
        train_missing(plan(*rows), given, stopped)
    assert seen == [("a", preset("miniature-lora-r4").method, given.runs)]


def test_the_json_schema_knows_every_field():
    from likeness.comparison.plan_file import PlanFile

    schema = PlanFile.model_json_schema()
    assert schema["additionalProperties"] is False
    assert {*schema["properties"]} == {*PlanFile.model_fields}


def test_a_bound_plan_on_disk_is_read_again(tmp_path):
    made = find_plan("study").matrix({})
    (tmp_path / "plan.json").write_text(made.to_json(), encoding="utf-8")
    assert read_plan(tmp_path / "plan.json") == made


def test_a_row_keeps_its_two_strengths_apart():
    row = {"name": "r", "adapter": "r.safetensors", "strength_unet": 0.5, "strength_text": 0.25}
    (variant,) = plan(row).matrix({"r": "a" * 64}).variants
    assert (variant.strength_unet, variant.strength_text) == (0.5, 0.25)
