"""What a run says at its start."""

import re
from types import SimpleNamespace

import pytest
import torch
from likeness.trainers import startup_notes
from likeness.trainers.photo_manifest import read_class_images, write_manifest
from likeness.trainers.presets import preset
from likeness.trainers.recipe import Recipe
from likeness.trainers.subject import read_subject
from PIL import Image


def test_photographs_that_are_trained_without_the_token_are_told(monkeypatch):
    prompts = ["a photo of SKS man", "a man on a beach", "a man"]
    monkeypatch.setattr(startup_notes, "photo_prompts", lambda run: prompts)
    monkeypatch.setattr(startup_notes, "word_ids", lambda *_: [])
    for name in ("unknown_words", "truncation_note"):
        monkeypatch.setattr(startup_notes, name, lambda *_: None)
    notes = []
    given = SimpleNamespace(recipe=Recipe(), note=notes.append)
    startup_notes.note_prompts(given, SimpleNamespace(tokenizer=None))
    assert len(notes) == 1 and notes[0].startswith("2 of 3 photographs are trained without the")
    del prompts[1:]
    startup_notes.note_prompts(given, SimpleNamespace(tokenizer=None))
    assert len(notes) == 1


def images(folder, good, small=0, captions=0):
    folder.mkdir()
    for number in range(good + small):
        size = 64 if number < good else 32
        Image.new("RGB", (size, size), (number, 0, 0)).save(folder / f"{number}.png")
    for number in range(captions):
        (folder / f"{number}.txt").write_text("a man at sea")
    return folder


@pytest.fixture
def prepared(tmp_path):
    """A run whose images are listed, as far as remarks ask; `notes` are what it said."""

    def prepare(photos, own=None, processes=1, **parts):
        recipe = Recipe().changed(subject={"resolution": 64}).changed(**parts)
        found = read_subject(photos, recipe.subject)
        classes = read_class_images(own, recipe) if own else None
        recipe = recipe.changed(subject={"digest": found.digest})
        if classes:
            recipe = recipe.changed(prior={"images": classes.digest})
        write_manifest(tmp_path / "photos.json", found, classes)
        notes = []
        return SimpleNamespace(
            recipe=recipe,
            places=SimpleNamespace(photos=photos, class_images=own),
            folder=SimpleNamespace(photos_file=tmp_path / "photos.json"),
            accelerator=SimpleNamespace(num_processes=processes),
            note=notes.append,
            notes=notes,
        )

    return prepare


def test_the_terminal_never_said_which_photographs_it_dropped(prepared, tmp_path, monkeypatch):
    run = prepared(images(tmp_path / "photos", good=3, small=1))
    monkeypatch.setattr("likeness.trainers.photo_manifest.read_subject", None)
    startup_notes.note_images(run)
    (said,) = run.notes
    assert said.startswith("Photographs: 3 used, 1 not used:\n- 3.png: it is too")


@pytest.mark.parametrize(
    ("schedule", "holdout", "processes", "said"),
    [
        ({"steps": 160}, 0, 1, "3 photographs, 160 steps of 1: each is seen 53 times (epochs)."),
        (
            {"steps": 10, "batch_size": 2, "gradient_accumulation_steps": 3},
            1,
            2,
            "2 photographs (1 more held out), 10 steps of 12: each is seen 60 times (epochs).",
        ),
        ({"steps": 60}, 0, 1, "seen 20 times (epochs)."),
        ({"steps": 20}, 1, 1, "seen 10 times (epochs). That is little, 50 to 100 is usual"),
        ({"steps": 8}, 0, 1, "seen 2.7 times (epochs). That is little"),
        ({"steps": 900}, 0, 1, "seen 300 times (epochs)."),
        ({"steps": 802}, 1, 1, "(1 more held out), 802 steps of 1: each is seen 401 times"),
        ({"steps": 100}, 2, 1, "1 photograph (2 more held out), 100 steps"),
    ],
)
def test_how_often_each_photograph_is_seen_is_told(
    schedule, holdout, processes, said, prepared, tmp_path
):
    photos = images(tmp_path / "photos", good=3, small=1)
    run = prepared(photos, processes=processes, schedule=schedule, subject={"holdout": holdout})
    startup_notes.note_passes(run)
    (note,) = run.notes
    assert said in note
    assert ("That is much" in note) == ("401" in said)
    if said.endswith("."):
        assert note.endswith(said)


def test_many_dropped_photographs_are_told_folded(prepared, tmp_path):
    run = prepared(images(tmp_path / "photos", good=1, small=12))
    startup_notes.note_images(run)
    (said,) = run.notes
    assert said.count("too small") == 5 and said.endswith(
        "and 7 more, in photos.json in the run folder"
    )


def test_captions_that_are_not_used_were_passed_over_in_silence(prepared, tmp_path):
    photos = images(tmp_path / "photos", good=3, captions=2)
    run = prepared(photos)
    startup_notes.note_images(run)
    (said,) = run.notes
    assert "2 of 3 have a caption that is not used: captions are off (subject.captions)" in said
    run = prepared(photos, subject={"captions": True})
    startup_notes.note_images(run)
    assert "not used" not in run.notes[0] and "there is no 2.txt" in run.notes[0]


def test_what_is_wrong_with_own_class_images_was_read_by_nobody(prepared, tmp_path):
    own = images(tmp_path / "own", good=2, small=1, captions=1)
    run = prepared(images(tmp_path / "photos", good=1), own)
    startup_notes.note_images(run)
    refused, noted = run.notes
    assert refused.startswith("Class images: 2 used, 1 not used:")
    assert "1 of 2 have a caption that is not used: class images use the prompts of" in noted


@pytest.mark.parametrize(
    ("weights", "recipe", "said"),
    [
        (860_000_000, preset("lora-r4").changed(method={"kind": "dreambooth"}), True),
        (860_000_000, preset("standard"), False),
        (860_000_000, preset("lora-r4"), False),
        (16_000_000, preset("miniature-standard"), False),
    ],
    ids=["set on a LoRA's preset", "standard", "LoRA", "miniature"],
)
def test_dreambooth_set_on_a_loras_preset_ruined_the_model_at_1e4(weights, recipe, said):
    notes = []
    unet = SimpleNamespace(parameters=lambda: [torch.empty(weights, device="meta")])
    startup_notes.note_learning_rate(
        SimpleNamespace(recipe=recipe, note=notes.append), SimpleNamespace(unet=unet)
    )
    assert ["1e-6 to 5e-6" in note for note in notes] == ([True] if said else [])


def test_a_run_resumed_by_another_number_of_processes_had_other_steps_in_silence():
    assert startup_notes.processes_note(2, 2) is None
    assert startup_notes.processes_note(None, 2) is None
    assert "So far 1 process trained, now 2 do" in startup_notes.processes_note(1, 2)
    assert "1/2 of the photographs" in startup_notes.processes_note(2, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text_encoder": {"last_step": 500}}, []),
        ({"saving": {"adapters_every": 801}}, ["800 steps, .* saving.adapters_every 801"]),
        (
            {"subject": {"holdout": 1}, "validate_every": 5000, "text_encoder": {"last_step": 900}},
            ["800 steps, .* validate_every 5000, text_encoder.last_step 900"],
        ),
        (
            {"text_encoder": {"train": False, "learning_rate": 1e-5}},
            ["text_encoder.learning_rate has no effect"],
        ),
    ],
)
def test_settings_of_later_steps_than_the_run_has_did_nothing_in_silence(changes, said):
    notes = []
    run = SimpleNamespace(recipe=preset("lora-r4").changed(**changes), note=notes.append)
    startup_notes.note_unreached(run)
    assert len(notes) == len(said)
    assert all(re.search(pattern, note) for pattern, note in zip(said, notes, strict=True))
