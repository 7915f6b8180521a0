import json
from contextlib import suppress
from pathlib import Path
from typing import get_args
from unicodedata import normalize

import pytest
from likeness.trainers.errors import RecipeError
from likeness.trainers.presets import preset
from likeness.trainers.recipe import (
    DreamBooth,
    LoRA,
    Recipe,
    check_name,
    read_recipe,
    recipe_from_data,
    recipe_from_json,
)
from likeness.trainers.recipe_parts import name_of_folder, slugify
from pydantic import BaseModel

STUDY = {
    # key: (method, resolution, text encoder, learning rate, precision, optimizer)
    "tiny": ("dreambooth", 256, False, 2e-6, "fp32", "adamw8bit"),
    "standard": ("dreambooth", 512, True, 2e-6, "fp16", "adamw8bit"),
    "lora-r1": ("lora", 512, True, 1e-4, "fp16", "adamw8bit"),
    "lora-r4": ("lora", 512, True, 1e-4, "fp16", "adamw8bit"),
    "lora-r8": ("lora", 512, True, 1e-4, "fp16", "adamw8bit"),
}


@pytest.mark.parametrize(
    ("prompt", "caption", "said"),
    [
        ("a photo of {token} {class}", "at sea, {token} {class}", "at sea, sks man"),
        ("a photo of {token} {class}, {caption}", "at sea", "a photo of sks man, at sea"),
        ("a photo of {token} {class}, {caption}", None, "a photo of sks man"),
        ("{caption}, {token} {class}, hd", None, "sks man, hd"),
        ("{caption}", "sks man at sea", "sks man at sea"),
        ("{caption}", None, "sks man"),
    ],
)
def test_a_caption_stands_in_place_of_the_prompt_or_where_the_prompt_says(prompt, caption, said):
    assert Recipe().changed(subject={"prompt": prompt}).instance_prompt(caption) == said


@pytest.mark.parametrize("name", STUDY)
def test_presets_are_the_study(name):
    recipe = preset(name)
    assert (
        recipe.method.kind,
        recipe.subject.resolution,
        recipe.text_encoder.train,
        recipe.optimizer.learning_rate,
        recipe.compute.precision,
        recipe.optimizer.name,
    ) == STUDY[name]
    assert recipe.instance_prompt() == "a photo of sks man face"
    smile = "random smile" if name == "tiny" else "slight smile"
    assert recipe.class_prompts() == (f"a photo of man, random head angle, {smile}",)
    assert recipe.prior.count == 500
    schedule = recipe.schedule
    assert (schedule.steps, schedule.batch_size, schedule.gradient_accumulation_steps) == (
        800,
        1,
        1,
    )
    assert (schedule.lr_scheduler, schedule.lr_warmup_steps) == ("constant", 0)


@pytest.mark.parametrize("name", STUDY)
def test_json_round_trip_keeps_the_digest(name):
    recipe = preset(name)
    again = recipe_from_json(recipe.to_json())
    assert again == recipe
    assert again.digest() == recipe.digest()


# What a field needs beside it.
NEEDS = {
    "validate_every": {"subject": {"holdout": 1}},
    "schedule.lr_warmup_steps": {"schedule": {"lr_scheduler": "cosine"}},
    "previews.every": {"previews": {"prompts": ["a cat"]}},
    "subject.shuffle_tags": {"subject": {"captions": True}},
}
ALONE = {"version"}  # has one value


def fields_of(recipe):
    """(the names of the part, or None, and of the field; the field and its value) of each."""
    for name, field in type(recipe).model_fields.items():
        value = getattr(recipe, name)
        if isinstance(value, BaseModel):
            for inner, one in type(value).model_fields.items():
                yield (name, inner), one, getattr(value, inner)
        else:
            yield (None, name), field, value


def other_values(field, value):
    """What may be valid in place of a field's value, likely ones first."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 8, value + 1, 0.25, value - 1, 2 * value]
    choices = [c for a in (field.annotation, *get_args(field.annotation)) for c in get_args(a)]
    other = [choice for choice in choices if isinstance(choice, str) and choice != value]
    return [*other, "dog", "a" * 64, ["a cat"], 0.5, 5]


def changed(recipe, part, name, value):
    return recipe.changed(**({part: {name: value}} if part else {name: value}))


@pytest.mark.parametrize("begun", [Recipe(), Recipe(method=DreamBooth())], ids=["lora", "whole"])
def test_every_field_is_part_of_the_digest(begun):
    digests = {begun.digest()}
    for (part, name), field, value in fields_of(begun):
        path = f"{part}.{name}" if part else name
        if path in ALONE or name == "kind":
            continue
        ready = begun.changed(**NEEDS.get(path, {}))
        made = None
        for other in other_values(field, value):
            with suppress(RecipeError):
                made = changed(ready, part, name, other)
                break
        assert made is not None and made != ready, f"no other value of {path} is tried"
        assert made.digest() not in digests | {ready.digest()}, path
        digests.add(made.digest())
    assert begun.changed(prior=None).digest() not in digests


def test_the_method_is_part_of_the_digest():
    assert Recipe().digest() != Recipe(method=DreamBooth()).digest()


def test_class_prompts_are_lines():
    prior = {"prompt": "a photo of {class}\n\n  {token}, a {class} \n"}
    assert Recipe().changed(prior=prior).class_prompts() == ("a photo of man", "sks, a man")
    assert Recipe().changed(prior=None).class_prompts() == ()


def test_two_spellings_of_a_number_are_one_recipe():
    whole = recipe_from_data({"optimizer": {"learning_rate": 1}})
    assert whole.digest() == recipe_from_data({"optimizer": {"learning_rate": 1.0}}).digest()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"method": {"kind": "lora", "rank": 0}}, "rank"),
        ({"prior": {"prompt": "  "}}, "prior.prompt"),
        ({"prior": {"prompt": "a man\na face", "images": "0" * 64}}, "give one line"),
        ({"name": "../evil"}, "name"),
        ({"name": "C:evil"}, "name"),
        ({"name": "con"}, "name"),
        ({"learning_rat": 1}, "learning_rat"),
        ({"optimizer": {"learning_rate": float("nan")}}, "learning_rate"),
        ({"optimizer": {"learning_rate": -1}}, "learning_rate"),
        ({"subject": {"resolution": 500}}, "multiple of 8"),
        ({"validate_every": 5}, "holdout"),
        ({"schedule": {"lr_warmup_steps": 5}}, "constant_with_warmup"),
        ({"previews": {"every": 5}}, "previews.prompts"),
        ({"text_encoder": {"train": False, "last_step": 5}}, "text_encoder.train"),
        ({"optimizer": {"name": "prodigy"}, "text_encoder": {"learning_rate": 1}}, "prodigy"),
        ({"seed": 2**63}, "seed"),
        ({"version": 2}, "version"),
        ([], "recipe"),
        ("x" * 1000, "recipe"),
    ],
)
def test_a_wrong_recipe_names_the_field(data, says):
    with pytest.raises(RecipeError, match=says):
        recipe_from_data(data)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"seed": 1e400}', "null"])
def test_broken_json_is_a_recipe_error(text):
    with pytest.raises(RecipeError):
        recipe_from_json(text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_recipe_is_read_as_windows_writes_it(tmp_path, encoding):
    path, recipe = tmp_path / "recipe.json", preset("lora-r4").changed(subject={"token": "sks"})
    path.write_text(recipe.to_json(), encoding=encoding)
    assert read_recipe(path) == recipe


def test_a_file_that_is_not_text_is_a_recipe_error(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not valid JSON"):
        read_recipe(path)


def test_changed_merges_parts_and_checks_again():
    recipe = Recipe().changed(method={"kind": "dreambooth"}, schedule={"steps": 3})
    assert recipe.method == DreamBooth()
    assert recipe.schedule.steps == 3 and recipe.schedule.batch_size == 1
    with pytest.raises(RecipeError, match="steps"):
        recipe.changed(schedule={"steps": 0})


def test_a_change_of_any_name_is_a_recipe_error_and_no_traceback():
    for name in ("self", "parts", "recipe", "__class__"):
        with pytest.raises(RecipeError, match=f"{name}: there is no such field, only "):
            Recipe().changed(**{name: {"x": 1}})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schedule": {"course": "cosine"}}, r"schedule\.course: .*only steps, batch_size, .*lr_"),
        ({"method": {"network_dim": 4}}, r"method\.lora\.network_dim: .*only kind, rank, alpha"),
        ({"method": {"kind": "dreambooth", "rank": 4}}, r"method\.dreambooth\.rank: .*only kind "),
        ({"prior": {"loss_weights": 2}}, r"prior\.loss_weights: .*only prompt, negative, count"),
    ],
)
def test_an_unknown_field_was_refused_without_the_known_ones(changes, says):
    with pytest.raises(RecipeError, match=says):
        Recipe().changed(**changes)


def test_names_of_runs_say_the_method():
    assert preset("tiny").changed(name="cat").run_name().startswith("cat-dreambooth-256-")
    assert Recipe(name="dog", method=LoRA(rank=8)).run_name().startswith("dog-lora-r8-")


@pytest.mark.parametrize("name", ["dog", "my dog 2", "a.b_c-d", "x" * 64])
def test_good_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "folder, name",
    [
        *(("input/anna", "anna"), ("input/people/Anna Müller/", "Anna Müller"), ("anna/.", "anna")),
        *(
            ("anna/../ben", "ben"),
            ("_anna (2)!", "anna-2"),
            (".hidden", "hidden"),
            ("/", "subject"),
        ),
        *(("...", "subject"), ("con", "subject"), ("x" * 99, "x" * 64), ("安" * 60, "安" * 42)),
    ],
)
def test_the_name_of_a_folder_is_made_that_of_a_file(folder, name):
    assert check_name(name_of_folder(Path(folder))) == name


@pytest.mark.parametrize("name", ["Анна", "安娜 v2", "Vergleich Müller", "अनीता", "ö", "Я" * 64])
def test_names_of_other_scripts_were_refused(name):
    assert check_name(name) == name
    assert check_name(normalize("NFD", name)) == name, "one name, however its letters are written"


def test_a_long_name_of_other_letters_stays_below_what_file_systems_take():
    with pytest.raises(ValueError, match="128 bytes"):
        check_name("安" * 43)
    assert slugify("安" * 60 + "!", 48) == "安" * 32
    assert slugify("安娜 v2 (1)") == "安娜-v2-1" and slugify("../…") == ""


@pytest.mark.parametrize(
    "name",
    [
        "",
        " dog",
        "dog ",
        "a/b",
        "a\\b",
        "..",
        "a..b",
        ".a",
        "a.",
        "d:x",
        "nul.txt",
        "a\x00",
        "x" * 65,
        "ＣＯＮ",
        "a／b",
        "a\u202eb",
        "a\u3164",
        "\u0301a",
        "smile 😀",
    ],
)
def test_bad_names(name):
    with pytest.raises(ValueError):
        check_name(name)


def test_the_schema_is_json():
    assert "subject" in json.loads(json.dumps(Recipe.model_json_schema()))["properties"]


@pytest.mark.parametrize("token", ["sks", "<anna>", "анна", "ohwx person"])
def test_a_token_is_any_word(token):
    recipe = Recipe().changed(subject={"token": token})
    assert recipe.instance_prompt() == f"a photo of {token} man face"


@pytest.mark.parametrize("token", ["", " ", "{token}", "a, b", "a\nb", "x" * 65])
def test_a_token_that_is_no_word_is_refused(token):
    with pytest.raises(RecipeError, match=r"subject\.token"):
        Recipe().changed(subject={"token": token})


@pytest.mark.parametrize(
    "parts", [{"prior": {"prompt": "a {caption}"}}, {"previews": {"prompts": ["{caption}"]}}]
)
def test_a_caption_has_a_place_in_the_subjects_prompt_alone(parts):
    with pytest.raises(RecipeError, match=r"only in subject\.prompt"):
        Recipe().changed(**parts)


def test_the_weight_around_masks_that_are_not_there_trains_nothing_anew():
    plain, moved = (Recipe().changed(subject={"unmasked_weight": w}) for w in (0.1, 0.5))
    assert plain.canonical() == moved.canonical()
    masked = [one.changed(subject={"mask": "alpha"}).canonical() for one in (plain, moved)]
    assert masked[0] != masked[1]


TEACHER = {"prior": {"source": "teacher"}}


@pytest.mark.parametrize(
    ("idle", "part", "field", "values", "at_work"),
    [
        (
            {}, "schedule", "lr_num_cycles", (1, 3),
            {"schedule": {"lr_scheduler": "cosine_with_restarts"}},
        ),
        ({}, "schedule", "lr_power", (1.0, 2.0), {"schedule": {"lr_scheduler": "polynomial"}}),
        ({}, "subject", "face_share", (0.0, 0.3), {"subject": {"crop": "face"}}),
        (
            {"text_encoder": {"train": False}}, "text_encoder", "learning_rate", (None, 1e-5),
            {"text_encoder": {"train": True}},
        ),
        (
            {"compute": {"precision": "bf16"}}, "compute", "tf32", (False, True),
            {"compute": {"precision": "fp32"}},
        ),
        (TEACHER, "prior", "count", (500, 9), {"prior": {"source": "images"}}),
        (TEACHER, "prior", "steps", (25, 9), {"prior": {"source": "images"}}),
        (TEACHER, "prior", "guidance", (7.5, 9.0), {"prior": {"source": "images"}}),
        (TEACHER, "prior", "seed", (0, 9), {"prior": {"source": "images"}}),
        (TEACHER, "prior", "negative", ("", "a cat"), {"prior": {"source": "images"}}),
        ({"prior": {"images": "0" * 64}}, "prior", "count", (500, 9), {"prior": {"images": None}}),
    ],
)  # fmt: skip
def test_an_option_that_does_nothing_trained_the_run_anew(idle, part, field, values, at_work):
    plain, moved = (Recipe().changed(**idle).changed(**{part: {field: v}}) for v in values)
    assert plain.canonical() == moved.canonical() and plain.digest() != moved.digest()
    working = [one.changed(**at_work).canonical() for one in (plain, moved)]
    assert working[0] != working[1]


def test_a_run_that_continues_another_does_not_also_start_from_a_file():
    started = Recipe().changed(method={"start": "a" * 64})
    with pytest.raises(RecipeError, match=r"continues .* method\.start"):
        started.changed(continues="b" * 64)
    assert started.start == "a" * 64 and started.without_start() == Recipe()
    whole = Recipe(method=DreamBooth())
    assert whole.start is None and whole.without_start() == whole
    with pytest.raises(RecipeError, match="there is no such field, only kind"):
        whole.changed(method={"start": "a" * 64})
