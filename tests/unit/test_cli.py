import errno
import io
import logging
import sys
from pathlib import Path

import pytest
import torch
from likeness.cli import main
from likeness.comparison import cli as comparison
from likeness.comparison import sample
from likeness.comparison.errors import ComparisonError
from likeness.trainers import cli as training
from likeness.trainers.adapter_metadata import build_metadata
from likeness.trainers.arguments import apply_overrides
from likeness.trainers.cli import resolve_recipe
from likeness.trainers.errors import RecipeError
from likeness.trainers.places import Places
from likeness.trainers.presets import preset
from likeness.trainers.recipe import read_recipe
from likeness.trainers.run_folder import RunFolder
from safetensors.torch import save_file


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "0"], "steps"),
        (["--width", "100"], "width"),
        (["--height", "32"], "height"),
        (["--guidance", "-1"], "guidance"),
        (["--seed", "-1"], "--seed"),
        (["--seed", str(2**64)], "--seed"),
        (["--name", "../x"], "--name"),
        (["--clip-skip", "13"], "--clip-skip"),
    ],
)
def test_a_wrong_value_of_draw_is_one_clear_error(capsys, arguments, says):
    assert main(["draw", "a dog", "--base", "gone.safetensors", *arguments]) == 1
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said


@pytest.mark.parametrize(("asked", "drawn"), [([], 2), (["--clip-skip", "1"], 1)])
def test_draw_takes_clip_skip_from_the_adapters_recipe(tmp_path, monkeypatch, asked, drawn):
    given = {}
    monkeypatch.setattr(sample, "load_with_adapter", lambda *a, **k: None)
    monkeypatch.setattr(sample, "draw", lambda model, prompt, **k: given.update(k) or [])
    recipe = preset("lora-r4").changed(text_encoder={"clip_skip": 2})
    adapter = tmp_path / "a.safetensors"
    metadata = build_metadata(recipe, steps=1, losses=[])
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(4, 8)}, adapter, metadata)
    words = ["draw", "a dog", "--base", "gone.safetensors", "--adapter", str(adapter)]
    assert main([*words, "--output", str(tmp_path), *asked]) == 0
    assert given["clip_skip"] == drawn


def test_a_full_disk_is_told_without_a_traceback(capsys, monkeypatch):
    def full(name):
        raise OSError(errno.ENOSPC, "No space left on device", "cells/1.png")

    monkeypatch.setattr(comparison, "find_plan", full)
    assert main(["plan", "study"]) == 1
    said = capsys.readouterr().err
    assert "The disk is full" in said and "cells/1.png" in said


def test_bitsandbytes_tells_its_errors_and_not_which_kernels_it_lacks(monkeypatch):
    """It would print "Failed to load CPU gemm_4bit_forward" at every command that imports peft."""
    told = {}

    def find(name):
        log = logging.getLogger("bitsandbytes.backends.cpu.ops")
        told.update({level: log.isEnabledFor(level) for level in (logging.WARNING, logging.ERROR)})
        raise ComparisonError("no plan")

    monkeypatch.setattr(comparison, "find_plan", find)
    assert main(["plan", "study"]) == 1
    assert told == {logging.WARNING: False, logging.ERROR: True}


def test_a_terminal_that_knows_no_arrows_is_told_the_rest(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert main(["recipe", "lora-r4"]) == 0
    print("subject \u2191")
    sys.stdout.flush()
    assert raw.getvalue().rstrip().endswith(rb"subject \u2191")


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "utf-8", "utf-16"])
def test_a_redirected_recipe_could_not_be_read_back_on_windows(tmp_path, monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert main(["recipe", "lora-r4", "--set", "subject.class_word=Jürgen ↑"]) == 0
    sys.stdout.flush()
    file = tmp_path / "r.json"
    file.write_bytes(raw.getvalue())
    assert read_recipe(file).subject.class_word == "Jürgen ↑"
    assert ("Jürgen".encode() in raw.getvalue()) == (encoding == "utf-8")


def test_class_images_that_are_not_used_were_taken_without_a_word(capsys, asked, tmp_path):
    given = ["--base", "b", "--photos", "p", "--class-images", "own"]
    for setting, why in (("prior=null", "prior is null"), ("prior.source=teacher", "'teacher'")):
        assert main(["train", "lora-r4", *given, "--set", setting]) == 1
        said = capsys.readouterr().err
        assert "own would not be used" in said and why in said


def test_a_folder_of_a_presets_name_stood_before_the_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert resolve_recipe("tiny") == (preset("tiny"), None)
    with pytest.raises(RecipeError, match=r"recipe\.json cannot be read"):
        resolve_recipe("./tiny")


@pytest.fixture
def asked(monkeypatch):
    """What `likeness train` asks to be trained: (recipe, places)."""
    given = []
    monkeypatch.setattr(
        training, "train_with_progress", lambda recipe, places, **_: given.append((recipe, places))
    )

    def train(*arguments):
        assert main(["train", *map(str, arguments)]) == 0
        return given.pop()

    return train


def test_train_looks_for_its_inputs_where_it_is_told(asked, tmp_path):
    base, photos, own, words, more = (tmp_path / name for name in ("b", "p", "c", "t", "u"))
    recipe, places = asked("tiny", "--base", base, "--photos", photos)
    assert recipe == preset("tiny")
    assert (places.base, places.photos) == (base, photos)
    assert (places.class_images, places.tokenizers) == (None, ())
    given = ["--class-images", own, "--tokenizer", words, "--tokenizer", more, "--output", tmp_path]
    _, places = asked("tiny", "--base", base, "--photos", photos, *given)
    assert (places.class_images, places.tokenizers) == (own, (words, more))
    assert places.runs == tmp_path / "likeness" / "runs" and places.loras == tmp_path / "loras"


def test_a_run_folder_stands_for_its_recipe_and_its_places(asked, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    recipe = preset("lora-r1").changed(seed=7)
    folder.recipe_file.write_text(recipe.to_json())
    names = ("base", "photos", "class_images", "runs", "loras", "checkpoints", "cache")
    places = Places(**{name: tmp_path / name for name in names}, tokenizers=(tmp_path / "t",))
    places = places.model_copy(update={"runs": tmp_path})
    folder.places_file.write_text(places.model_dump_json())
    assert asked(folder.path) == (recipe, places)
    assert asked(folder.path, "--output", "o")[1].loras == Path("o", "loras")
    changed, moved = asked(
        *(folder.path, "--photos", "p", "--class-images", "c", "--tokenizer", "t"),
        *("--set", "seed=8"),
    )
    assert changed == recipe.changed(seed=8)
    new = {"photos": Path("p"), "class_images": Path("c"), "tokenizers": (Path("t"),)}
    assert moved == places.model_copy(update=new)
    without, _ = asked(folder.path, "--set", "prior=null")
    assert without.prior is None, "its class images are none that were asked for now"


def test_a_run_folder_from_elsewhere_chose_where_files_are_written(asked, tmp_path):
    folder = RunFolder(tmp_path / "downloads" / "run")
    folder.path.mkdir(parents=True)
    folder.recipe_file.write_text(preset("lora-r1").to_json())
    theirs = Places.for_output(tmp_path / "theirs", base=tmp_path / "b", photos=tmp_path / "p")
    folder.places_file.write_text(theirs.model_dump_json())
    _, places = asked(folder.path)
    assert places == Places.for_output(Path("output"), base=theirs.base, photos=theirs.photos)


def test_a_run_folder_gives_its_lora_file_only_to_a_recipe_that_starts_from_it(asked, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    recipe = preset("lora-r1").changed(method={"start": "a" * 64})
    folder.recipe_file.write_text(recipe.to_json())
    places = Places.for_output(
        tmp_path, base=tmp_path / "b", photos=tmp_path / "p", start=tmp_path / "old"
    )
    folder.places_file.write_text(places.model_dump_json())
    assert asked(folder.path)[1].start == tmp_path / "old"
    without = ("--set", "method.start=null")
    assert asked(folder.path, *without)[1].start is None
    assert asked(folder.path, *without, "--start-from", "new")[1].start == Path("new")
    given = ("--base", "b", "--photos", "p")
    assert asked("lora-r1", *given, "--start-from", "new")[1].start == Path("new")
    assert asked("lora-r1", *given)[1].start is None


@pytest.mark.parametrize("steps", ["0", "-5"])
def test_no_steps_more_are_refused(capsys, tmp_path, steps):
    given = ["--base", "b", "--photos", "p", "--more", steps]
    assert main(["train", "lora-r1", *given]) == 1
    assert "at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("turned", [False, True])
def test_settings_that_need_each_other_may_come_in_any_order(turned):
    settings = ["schedule.lr_warmup_steps=50", "schedule.lr_scheduler=cosine"]
    recipe = apply_overrides(preset("lora-r4"), settings[::-1] if turned else settings)
    assert (recipe.schedule.lr_warmup_steps, recipe.schedule.lr_scheduler) == (50, "cosine")


def test_a_part_given_whole_takes_its_fields_from_other_settings():
    settings = ['method={"kind": "lora", "rank": 2}', "method.targets=linear"]
    method = apply_overrides(preset("standard"), settings).method
    assert (method.kind, method.rank, method.targets) == ("lora", 2, "linear")


@pytest.mark.parametrize("unbound", ["lora-r1", "recipe.json"])
def test_more_of_a_preset_was_told_by_a_digest_that_nobody_has(
    capsys, tmp_path, monkeypatch, unbound
):
    monkeypatch.chdir(tmp_path)
    Path("recipe.json").write_text(preset("tiny").to_json())
    assert main(["train", unbound, "--base", "b", "--photos", "p", "--more", "100"]) == 1
    said = capsys.readouterr().err
    assert f"{unbound} does not name one" in said and "give the run folder or its adapter" in said


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("name=2024", "name", "2024"),
        ("subject.token=1234", "subject.token", "1234"),
        ("prior.prompt=a {class}", "prior.prompt", "a {class}"),
        ("previews.prompts=a photo", "previews.prompts", ("a photo",)),
        ("previews.prompts=7", "previews.prompts", ("7",)),
        ('previews.prompts=["a", "b"]', "previews.prompts", ("a", "b")),
        ("seed=2024", "seed", 2024),
        ("method.rank=8", "method.rank", 8),
    ],
)
def test_a_number_as_the_text_of_a_setting_was_refused(setting, path, value):
    found = apply_overrides(preset("lora-r4"), [setting])
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


def test_a_mistyped_path_was_taken_for_a_preset(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/typo", "typo/", "A.SAFETENSORS", "recipe.JSON"):
        assert main(["train", name, "--base", "b", "--photos", "p"]) == 1
        said = capsys.readouterr().err
        assert "preset" not in said and f"{Path(name)} does not exist" in said
