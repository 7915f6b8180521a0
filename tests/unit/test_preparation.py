import json
import os
import runpy
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from likeness.demo.random_model import write_random_model
from likeness.trainers.binding import bind, named
from likeness.trainers.digests import content_digest
from likeness.trainers.disk_space import lora_weights, require_disk_space
from likeness.trainers.earlier_runs import (
    equivalent_runs,
    find_continued_run,
    reused_message,
    saved_states,
)
from likeness.trainers.errors import (
    AdapterError,
    BaseModelError,
    LikenessError,
    MissingPackage,
    OutOfSpace,
    RecipeError,
    RunBusy,
    SubjectError,
)
from likeness.trainers.photo_manifest import load_class_photos, load_subject_photos
from likeness.trainers.places import Places
from likeness.trainers.preparation import prepare
from likeness.trainers.presets import preset
from likeness.trainers.recipe import LoRA, Recipe
from likeness.trainers.run_folder import Result, RunFolder
from likeness.trainers.subject import photo_set_digest
from PIL import Image

MODELS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "models.py"))


def keep_state(run, name):
    """A checkpoint as far as a run's folder tells."""
    (run.checkpoints / name).mkdir(parents=True)
    (run.checkpoints / name / "state.json").touch()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("base") / "base.safetensors")


@pytest.fixture
def places(tmp_path, base):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{i}.png")
    return Places(
        base=base,
        photos=photos,
        runs=tmp_path / "out" / "runs",
        loras=tmp_path / "out" / "loras",
        checkpoints=tmp_path / "out" / "checkpoints",
        cache=tmp_path / "out" / "cache",
    )


def recipe(**parts):
    small = Recipe().changed(subject={"resolution": 64}, optimizer={"name": "adamw"})
    return small.changed(**parts)


def test_a_prepared_run_names_its_inputs_by_digest_and_no_path(places):
    folder = prepare(recipe(), places)
    bound = folder.recipe()
    assert bound.base.digest and bound.subject.digest
    assert folder.path.name == bound.run_name()
    assert str(places.photos.parent) not in folder.recipe_file.read_text()
    assert folder.places().photos == places.photos


def test_equal_recipes_share_a_folder_and_renamed_photographs_change_nothing(places):
    first = prepare(recipe(), places)
    (places.photos / "0.png").rename(places.photos / "renamed.png")
    assert prepare(recipe(), places).path == first.path
    assert prepare(first.recipe(), places).path == first.path
    assert prepare(recipe(attempt=1), places).path != first.path


def test_another_base_or_other_photographs_than_named_are_refused(places):
    bound = bind(recipe(), places).recipe
    (places.photos / "0.png").unlink()
    with pytest.raises(RecipeError, match="set of photographs"):
        bind(bound, places)
    with pytest.raises(RecipeError, match="base model"):
        bind(recipe(base={"digest": "0" * 64}), places)


@pytest.mark.parametrize(
    ("prior", "says"),
    [
        ({"loss_weight": 0}, "set prior to null"),
        ({"prompt": "a photo of {class}\na {token} {class}"}, r"contains \{token\}"),
        ({"prompt": "a {token}", "source": "teacher"}, r"contains \{token\}"),
    ],
)
def test_a_prior_that_keeps_nothing_of_the_class_is_refused(places, prior, says):
    with pytest.raises(RecipeError, match=says):
        prepare(recipe(prior=prior), places)
    assert not places.runs.exists()


def test_a_base_of_other_noise_is_refused_before_anything_is_written(places, monkeypatch):
    def refuse(base):
        raise BaseModelError(f"{base.path.name} uses a noise schedule other than SD 1.x's")

    monkeypatch.setattr("likeness.trainers.binding.check_noise_schedule", refuse)
    with pytest.raises(BaseModelError, match="noise schedule"):
        prepare(recipe(), places)
    assert not places.runs.exists()


def test_own_class_images_are_part_of_the_digest(places, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(places.photos, own)
    with_own = places.model_copy(update={"class_images": own})
    bound = bind(recipe(), with_own).recipe
    assert bound.prior.images and bound.digest() != bind(recipe(), places).recipe.digest()
    with pytest.raises(RecipeError, match=r"prior\.images"):
        bind(bound, places)


@pytest.mark.parametrize(
    ("parts", "package"),
    [
        ({"optimizer": {"name": "adamw8bit"}}, "bitsandbytes"),
        ({"compute": {"attention": "xformers"}}, "xformers"),
        ({"optimizer": {"name": "prodigy", "learning_rate": 1.0}}, "prodigyopt"),
        ({"subject": {"crop": "face"}}, "dlib-bin"),
    ],
)
def test_a_missing_package_is_named_as_it_is_installed(places, monkeypatch, parts, package):
    monkeypatch.setattr("likeness.trainers.packages.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=rf"pip install --upgrade {package}(\n|$)"):
        prepare(recipe(**parts), places)
    assert not places.runs.exists()


@pytest.mark.parametrize(
    ("parts", "terminal", "comfyui"),
    [
        (
            {"optimizer": {"name": "adamw8bit"}},
            "--set optimizer.name=adamw",
            "optimizer of the train node to adamw",
        ),
        (
            {"compute": {"attention": "xformers"}},
            "--set compute.attention=sdpa",
            "attention of Train Options to sdpa",
        ),
    ],
)
def test_a_preset_without_a_gpus_packages_only_said_to_install_them(
    places, monkeypatch, parts, terminal, comfyui
):
    monkeypatch.setattr("likeness.trainers.packages.find_spec", lambda name: None)
    with pytest.raises(MissingPackage) as raised:
        prepare(recipe(**parts), places)
    way_out = str(raised.value).splitlines()[-1]
    assert way_out.startswith("To do without it") and terminal in way_out and comfyui in way_out


def test_a_full_disk_is_named_before_anything_is_written(places, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("likeness.trainers.disk_space.shutil.disk_usage", lambda p: usage(10, 9, 1))
    with pytest.raises(OutOfSpace, match="GB are free"):
        prepare(recipe(), places)
    assert not places.runs.exists()


def room(monkeypatch, size):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(
        "likeness.trainers.disk_space.shutil.disk_usage", lambda p: usage(0, 0, size)
    )


def test_a_run_that_pauses_on_a_full_disk_need_not_have_its_checkpoints_room_again(
    places, monkeypatch
):
    whole = recipe(method={"kind": "dreambooth"})
    weights = 12 * 829_316  # of the tiny model, with AdamW's states
    room(monkeypatch, 3 * weights)
    folder = prepare(whole, places)
    room(monkeypatch, 1.5 * weights)
    with pytest.raises(OutOfSpace):
        prepare(whole, places)
    keep_state(folder, "step-000400")
    (folder.checkpoints / "step-000400" / "weights.safetensors").write_bytes(bytes(weights))
    assert prepare(whole, places) == folder


def test_a_running_mean_of_the_weights_needs_room_in_checkpoints(places, monkeypatch):
    whole = recipe(method={"kind": "dreambooth"}, objective={"ema_decay": 0.98})
    room(monkeypatch, 2 * 15 * 829_316)
    with pytest.raises(OutOfSpace):
        prepare(whole, places)
    room(monkeypatch, 2 * 20 * 829_316)
    prepare(whole, places)


def test_checkpoints_and_adapter_on_one_disk_need_room_together(places, monkeypatch):
    whole = recipe(method={"kind": "dreambooth"}, saving={"dtype": "fp32"})
    checkpoints, adapter = 2 * 12 * 829_316, 4.4 * 829_316
    room(monkeypatch, checkpoints + adapter / 2)
    with pytest.raises(OutOfSpace, match=r"runs and .*checkpoints: 0\.0 GB are free"):
        prepare(whole, places)
    room(monkeypatch, checkpoints + adapter + 1)
    prepare(whole, places)


def test_room_is_asked_for_the_files_on_the_way_that_are_not_there_yet(places, monkeypatch):
    whole = recipe(
        method={"kind": "dreambooth"}, schedule={"steps": 800}, saving={"adapters_every": 100}
    )
    bound = bind(whole, places).recipe
    needs = []
    monkeypatch.setattr(
        "likeness.trainers.disk_space._check_disk", lambda _, need: needs.append(need)
    )
    require_disk_space(bound, places, places.runs / "x")
    places.checkpoints.mkdir(parents=True)
    for step in (100, 200, 300):
        (places.checkpoints / f"{bound.run_name()}-step{step:06d}.safetensors").touch()
    require_disk_space(bound, places, places.runs / "x")
    require_disk_space(whole.changed(saving={"adapters_every": 0}), places, places.runs / "x")
    file = (needs[0] - needs[2]) / 7
    assert file > 0 and needs[0] - needs[1] == pytest.approx(3 * file)


def test_any_lora_was_taken_for_a_hundredth_of_the_model():
    """The room asked for grows with rank and targets, and without a text encoder it shrinks."""
    weights = [
        lora_weights(Recipe(method=method), method)
        for method in (LoRA(), LoRA(dora=True), LoRA(rank=128), LoRA(rank=128, targets="all"))
    ]
    assert weights == sorted(set(weights)) and weights[-1] == 128 * (1_050_816 + 165_888)
    alone = Recipe(method=LoRA(), text_encoder={"train": False})
    assert lora_weights(alone, LoRA()) == 4 * 199_296


def test_bad_inputs_are_told_and_nothing_is_written(places, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    truncated = tmp_path / "cut.safetensors"
    truncated.write_bytes(places.base.read_bytes()[:-10])
    for update, kind in [
        ({"photos": empty}, SubjectError),
        ({"photos": tmp_path / "absent"}, SubjectError),
        ({"base": truncated}, BaseModelError),
        ({"base": tmp_path / "absent.safetensors"}, BaseModelError),
    ]:
        with pytest.raises(kind):
            prepare(recipe(), places.model_copy(update=update))
    assert not places.runs.exists()


def test_a_run_to_continue_must_exist_and_be_shorter(places):
    with pytest.raises(RecipeError, match="to continue"):
        prepare(recipe(continues="a" * 64), places)
    earlier = prepare(recipe(), places)
    digest = earlier.recipe().digest()
    with pytest.raises(RecipeError, match="800 already"):
        prepare(recipe(continues=digest), places)
    longer = recipe(continues=digest, schedule={"steps": 1000})
    with pytest.raises(RecipeError, match="has no training state"):
        prepare(longer, places)
    keep_state(earlier, "step-000800")
    prepare(longer, places)
    for parts in (
        {"method": {"rank": 1}},
        {"optimizer": {"name": "prodigy", "learning_rate": 1.0}},
        {"text_encoder": {"train": False}},
        {"objective": {"ema_decay": 0.9}},
        {"base": {"prediction": "v_prediction"}},
    ):
        with pytest.raises(RecipeError, match=next(iter(parts))):
            prepare(longer.changed(**parts), places)


def test_a_continuing_run_could_not_go_on_once_the_earlier_ones_folder_was_deleted(places):
    earlier = prepare(recipe(), places)
    keep_state(earlier, "step-000800")
    longer = recipe(continues=earlier.recipe().digest(), schedule={"steps": 1000})
    folder = prepare(longer, places)
    assert [state.run for state in saved_states(folder, folder.recipe(), places)] == [earlier]
    shutil.rmtree(earlier.path)
    with pytest.raises(RecipeError, match="to continue"):
        saved_states(folder, folder.recipe(), places)
    keep_state(folder, "step-000900")
    assert [state.run for state in saved_states(folder, folder.recipe(), places)] == [folder]


def result_in(folder, adapter):
    return Result(
        adapter=adapter,
        recipe=folder.recipe(),
        folder=folder.path,
        steps=3,
        losses=(0.5, 0.25, 0.125),
        seconds={"train": 1.5},
        notes=("a note",),
        precision="fp32",
        peak_memory=7,
    )


SHOWN = {"previews": {"prompts": ["a cat"], "every": 5}, "saving": {"every": 7, "keep": 2}}


def finish(folder, tmp_path, **changes):
    adapter = tmp_path / "a.safetensors"
    adapter.touch()
    folder.write_result(replace(result_in(folder, adapter), **changes))


def test_a_run_that_is_only_shown_or_saved_in_another_way_is_not_trained_anew(places, tmp_path):
    first = prepare(recipe(), places)
    finish(first, tmp_path)
    assert prepare(recipe(**SHOWN), places).path == first.path
    for parts in ({"seed": 1}, {"attempt": 1}):
        assert prepare(recipe(**SHOWN, **parts), places).path != first.path
    assert prepare(recipe(saving={**SHOWN["saving"], "dtype": "fp32"}), places).path != first.path


@pytest.mark.parametrize(
    "old",
    [
        "/mnt/old/ComfyUI/output/loras/a.safetensors",
        "D:\\ComfyUI\\output\\loras\\a.safetensors",
        "\\\\server\\share\\output\\loras\\a.safetensors",
    ],
)
def test_every_run_of_a_moved_output_folder_counted_as_unfinished(places, tmp_path, old):
    given = {"base": places.base, "photos": places.photos}
    first = prepare(recipe(), Places.for_output(tmp_path / "old", **given))
    adapter = tmp_path / "old" / "loras" / "a.safetensors"
    adapter.parent.mkdir()
    adapter.touch()
    first.write_result(result_in(first, adapter))
    (tmp_path / "old").rename(tmp_path / "new")
    moved = Places.for_output(tmp_path / "new", **given)
    here = tmp_path / "new" / "loras" / "a.safetensors"
    assert prepare(recipe(), moved).finished().adapter == here
    folder = prepare(recipe(), moved)
    longer = folder.recipe().changed(schedule={"steps": 900}, continues=folder.recipe().digest())
    assert find_continued_run(longer, moved).finished().adapter == here
    told = json.loads(folder.result_file.read_text()) | {"adapter": old}
    folder.result_file.write_text(json.dumps(told))
    assert folder.finished().adapter == here, "written by another system"
    here.unlink()
    assert folder.result() is None


def test_the_newest_run_of_the_same_lesson_comes_first(places):
    first = prepare(recipe(), places)
    second = prepare(recipe(**SHOWN), places)
    third = prepare(recipe(previews={"width": 64}), places)
    os.utime(first.recipe_file, (1e9, 1e9))
    (places.runs / "subject-lora-r4-empty").mkdir()
    renamed = prepare(recipe(name="other"), places)
    others = equivalent_runs(third.recipe(), places)
    assert [run.path for run in others] == [second.path, first.path, renamed.path]


def test_a_stopped_run_is_settled_until_it_is_asked_to_go_on(places, tmp_path):
    folder = prepare(recipe(), places)
    finish(folder, tmp_path, stopped=True)
    assert folder.final_result().stopped and folder.finished() is None
    folder.resume_flag.touch()
    assert folder.final_result() is None
    finish(folder, tmp_path, stopped=True, steps=5)  # stopped again, later
    assert folder.final_result().steps == 5


def test_a_stopped_run_stands_for_its_lesson_unless_another_has_begun_that(places, tmp_path):
    first = prepare(recipe(), places)
    finish(first, tmp_path, stopped=True)
    second = prepare(recipe(**SHOWN), places)
    assert second.path != first.path, "in a terminal it goes on"
    assert prepare(recipe(**SHOWN), places, reuse_stopped=True).path == first.path
    keep_state(second, "step-000600")
    assert prepare(recipe(**SHOWN), places, reuse_stopped=True).path == second.path


def test_a_stopped_run_is_continued_from_the_steps_that_it_did(places, tmp_path):
    earlier = prepare(recipe(), places)
    finish(earlier, tmp_path, stopped=True, steps=400)
    digest = earlier.recipe().digest()
    keep_state(earlier, "step-000400")
    with pytest.raises(RecipeError, match="400 already"):
        prepare(recipe(continues=digest, schedule={"steps": 400}), places)
    longer = recipe(continues=digest, schedule={"steps": 600})
    folder = prepare(longer, places)
    # It has begun, and what it continues goes on: that is nothing to it any more.
    keep_state(folder, "step-000500")
    finish(earlier, tmp_path, steps=800)
    assert prepare(longer, places).path == folder.path


def test_a_result_reads_back_as_it_was_written(places, tmp_path):
    folder = prepare(recipe(), places)
    adapter = tmp_path / "a.safetensors"
    adapter.touch()
    assert folder.result() is None
    folder.write_result(result_in(folder, adapter))
    assert folder.result() == result_in(folder, adapter)


def test_a_result_without_its_file_or_damaged_is_none(places, tmp_path):
    folder = prepare(recipe(), places)
    folder.write_result(result_in(folder, tmp_path / "gone.safetensors"))
    assert folder.result() is None
    whole = folder.result_file.read_text()
    huge = [whole.replace("0.125", "1" + 400 * "0"), whole.replace("3", "Infinity")]
    for text in ["", "{", "[]", "{}", json.dumps({"version": 2}), *huge]:
        folder.result_file.write_text(text)
        assert folder.result() is None


def test_a_damaged_places_file_is_a_recipe_error(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(LikenessError):
        folder.places()
    folder.places_file.write_text('{"base": 3}')
    with pytest.raises(RecipeError, match="places"):
        folder.places()


def test_presets_bind_like_any_recipe(places):
    bound = bind(preset("lora-r1").changed(subject={"resolution": 64}), places)
    assert bound.recipe.base.digest and len(bound.photos.photos) == 3
    assert isinstance(places.base, Path)


def test_a_finished_run_is_found_again_on_a_full_disk(places, tmp_path, monkeypatch):
    folder = prepare(recipe(), places)
    adapter = tmp_path / "a.safetensors"
    adapter.touch()
    folder.write_result(result_in(folder, adapter))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("likeness.trainers.disk_space.shutil.disk_usage", lambda p: usage(10, 9, 1))
    monkeypatch.setattr("likeness.trainers.preparation.write_atomic", None)
    assert prepare(recipe(), places).finished() == result_in(folder, adapter)


def test_a_run_that_is_trained_elsewhere_is_left_alone(places):
    folder = prepare(recipe(), places)
    before = folder.places_file.read_bytes()
    moved = places.model_copy(update={"loras": places.loras / "x"})
    with FileLock(folder.lock), pytest.raises(RunBusy, match="another process"):
        prepare(recipe(), moved)
    assert folder.places_file.read_bytes() == before
    assert prepare(recipe(), moved).places().loras == moved.loras


def test_images_are_decoded_once_for_a_run(places, tmp_path, monkeypatch):
    own = tmp_path / "own"
    shutil.copytree(places.photos, own)
    places = places.model_copy(update={"class_images": own})
    folder = prepare(recipe(), places)
    bound, read = folder.recipe(), bind(recipe(), places).photos.photos
    monkeypatch.setattr("likeness.trainers.photo_manifest.read_subject", None)
    photos = load_subject_photos(folder.photos_file, bound, places.photos)
    assert photos.photos == read
    assert len(load_class_photos(folder.photos_file, bound, own).photos) == 3


@pytest.mark.parametrize("harm", ["gone", "cut", "other", "fewer", "moved"])
def test_a_list_of_images_that_does_not_hold_is_not_used(places, harm):
    folder = prepare(recipe(), places)
    file, bound = folder.photos_file, folder.recipe()
    if harm == "gone":
        file.unlink()
    elif harm == "cut":
        file.write_text(file.read_text()[:100])
    elif harm == "other":
        file.write_text(file.read_text().replace("digest", "caption"))
    elif harm == "fewer":
        table = json.loads(file.read_text())
        file.write_text(json.dumps({**table, "photos": table["photos"][1:]}))
    else:
        (places.photos / "0.png").rename(places.photos / "renamed.png")
    assert (
        photo_set_digest(load_subject_photos(file, bound, places.photos).photos)
        == bound.subject.digest
    )
    next(places.photos.iterdir()).unlink()
    with pytest.raises(SubjectError, match="changed"):
        load_subject_photos(file, bound, places.photos)


@pytest.mark.parametrize(
    "parts",
    [
        {"optimizer": {"name": "prodigy"}},
        {"compute": {"memory": "8bit"}},
        {"schedule": {"lr_scheduler": "cosine", "lr_warmup_steps": 800}},
    ],
    ids=["prodigy", "memory", "warmup"],
)
def test_what_the_recipe_alone_tells_is_refused_before_anything_is_written(places, parts):
    with pytest.raises(RecipeError, match=next(iter(parts))):
        prepare(recipe(**parts), places)
    assert not places.runs.exists()


def test_all_results_were_called_subject(places, tmp_path):
    run = prepare(recipe(), places)
    assert run.path.name.startswith("photos-lora-r4-") and run.recipe().name == "photos"
    finish(run, tmp_path)
    places.photos.rename(tmp_path / "anna")
    moved = places.model_copy(update={"photos": tmp_path / "anna"})
    assert prepare(recipe(), moved).path == run.path, "the same photographs"
    assert prepare(recipe(name="photos"), moved).path == run.path
    assert prepare(recipe(attempt=1), moved).path.name.startswith("anna-lora-r4-")


def test_another_name_alone_trained_everything_again(places, tmp_path):
    first = prepare(recipe(), places)
    finish(first, tmp_path)
    again = prepare(recipe(name="anna"), places)
    assert again.path == first.path
    said = reused_message(again.finished(), recipe(name="anna"))
    assert said.startswith("Already trained as 'photos': its file a.safetensors") and (
        "Raise attempt" in said
    )
    assert reused_message(again.finished(), named(recipe(**SHOWN), places)) == ""
    assert prepare(recipe(name="anna", attempt=1), places).path.name.startswith("anna-")


def test_a_run_that_is_renamed_goes_on_from_its_checkpoint(places):
    first = prepare(recipe(), places)
    keep_state(first, "step-000400")
    renamed = prepare(recipe(name="anna"), places)
    assert renamed.path != first.path
    assert [state.run for state in saved_states(renamed, renamed.recipe(), places)] == [first]


@pytest.mark.parametrize("parts", [{"name": "anna"}, SHOWN], ids=["renamed", "shown"])
def test_two_runs_of_one_lesson_trained_side_by_side(places, parts):
    first = prepare(recipe(), places)
    keep_state(first, "step-000400")
    with FileLock(first.lock), pytest.raises(RunBusy, match=first.path.name):
        prepare(recipe(**parts), places)
    assert prepare(recipe(**parts), places).path != first.path


# Starting from a LoRA file


@pytest.fixture
def with_start(places, base):
    """Places with a LoRA of rank 4 to start from."""
    path = MODELS["write_random_lora"](base, places.photos.parent / "start.safetensors")
    return places.model_copy(update={"start": path})


def test_a_recipe_names_the_lora_file_it_starts_from_by_digest(with_start):
    run = prepare(recipe(), with_start)
    bound = run.recipe()
    assert bound.start == content_digest(with_start.start)
    assert run.places().start == with_start.start
    assert str(with_start.start.parent) not in run.recipe_file.read_text()
    assert prepare(bound, with_start).path == run.path
    without = prepare(recipe(), with_start.model_copy(update={"start": None}))
    assert without.path != run.path, "another training"


def test_a_lora_file_is_missing_another_or_of_no_use(with_start, places):
    bound = bind(recipe(), with_start).recipe
    with pytest.raises(RecipeError, match=r"--start-from .* start_from .* null"):
        bind(bound, places)
    with pytest.raises(RecipeError, match="another LoRA file to start from"):
        bind(recipe(method={"start": "0" * 64}), with_start)
    with pytest.raises(RecipeError, match=r"method\.start.*'dreambooth'"):
        bind(recipe(method={"kind": "dreambooth"}), with_start)
    with pytest.raises(RecipeError, match=r"continues .* method\.start"):
        bind(recipe(continues="0" * 64), with_start)
    with pytest.raises(BaseModelError, match="cannot be read"):
        bind(recipe(), with_start.model_copy(update={"start": places.photos / "gone"}))


def test_a_lora_file_that_does_not_fit_the_recipe_is_refused_before_anything_is_written(with_start):
    with pytest.raises(RecipeError, match="likeness resize"):
        prepare(recipe(method={"rank": 2}), with_start)
    photo = with_start.model_copy(update={"start": with_start.photos / "0.png"})
    with pytest.raises(AdapterError, match="not a safetensors file"):
        prepare(recipe(), photo)
    assert not with_start.runs.exists()


def test_a_run_that_started_from_a_file_can_be_continued(with_start, places):
    run = prepare(recipe(), with_start)
    bound = run.recipe()
    further = bound.without_start().changed(
        continues=bound.digest(), schedule={"steps": bound.schedule.steps + 1}
    )
    assert find_continued_run(further, places).path == run.path
