"""What a run shows and leaves on its way, and when."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from likeness.trainers import looks
from likeness.trainers.graphs import Recorded
from likeness.trainers.presets import preset


class Held(Recorded):
    """Stands for recordings that hold memory until they are forgotten."""

    def __init__(self):
        self.held = True

    def forget(self):
        self.held = False


def out_of_memory(*_):
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.fixture
def run():
    """A run in which an adapter, a validation and a preview are due after step 4."""
    recipe = preset("lora-r4").changed(
        subject={"holdout": 1}, validate_every=2, saving={"adapters_every": 4},
        previews={"every": 4, "prompts": ["a cat"]},
    )  # fmt: skip
    return SimpleNamespace(recipe=recipe, no_previews=False)


def test_previews_without_room_beside_recordings_are_drawn_without_those(run, monkeypatch):
    compute, done = Held(), []

    def preview(*_):
        if compute.held:
            out_of_memory()
        done.append("preview")

    monkeypatch.setattr(looks, "save_on_the_way", lambda *_: done.append("adapter"))
    monkeypatch.setattr(looks, "validate", lambda *_: done.append("validation"))
    monkeypatch.setattr(looks, "preview", preview)
    looks.look(run, None, 4, compute)
    assert done == ["adapter", "validation", "preview"], "each once"


@pytest.mark.parametrize("compute", [Held(), len])
def test_what_still_fails_without_recordings_is_an_error(run, monkeypatch, compute):
    monkeypatch.setattr(looks, "save_on_the_way", out_of_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        looks.look(run, None, 4, compute)


def test_previews_for_which_there_is_no_memory_end_no_run(run, monkeypatch):
    said, asked = [], []

    def preview(*_):
        asked.append(1)
        out_of_memory()

    run.note = said.append
    monkeypatch.setattr(looks, "preview", preview)
    looks.previews(run, None, 0)
    looks.previews(run, None, 4, Held())
    assert len(said) == 1 and "512x512" in said[0]
    assert len(asked) == 1, "and they are not tried again"
    run.no_previews = False
    monkeypatch.setattr(looks, "preview", lambda *_: [][0])
    with pytest.raises(IndexError):
        looks.previews(run, None, 4)


@pytest.mark.parametrize("average", [None, "mean"])
def test_a_validation_of_averaged_weights_asks_their_text_encoder_anew(monkeypatch, average):
    """The prompts that a frozen text encoder gave are not those of its running mean."""
    asked, nothing = [], nullcontext()
    training = SimpleNamespace(
        learner=SimpleNamespace(device=None, evaluating=lambda anew: asked.append(anew) or nothing),
        state=SimpleNamespace(average=average), material=None,
    )  # fmt: skip
    monkeypatch.setattr(looks, "averaged", lambda state: nullcontext())
    monkeypatch.setattr(looks, "validation_samples", lambda *_: [0])
    monkeypatch.setattr(looks, "stacked", lambda *_: None)
    monkeypatch.setattr(looks, "losses_of", lambda *_: torch.ones(1))
    looks.validate(SimpleNamespace(recipe=None, emit=lambda *_, **__: None), training, 4)
    assert asked == [average is not None]


def test_what_is_away_from_the_device_is_there_for_previews_alone():
    here, away = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1, device="meta")
    moved = []
    for name, part in (("here", here), ("away", away)):
        device = torch.device("cpu" if name == "here" else "meta")
        part.device = device
        part.to = lambda to, name=name: moved.append((name, str(to)))
    with looks.at_hand(torch.device("cpu", 0), here, away):
        assert moved == [("away", "cpu:0")]
    assert moved == [("away", "cpu:0"), ("away", "cpu")]


def test_a_validation_due_where_a_run_was_left_was_never_done(run, monkeypatch):
    done = []
    for name in ("previews", "save_on_the_way", "validate"):
        monkeypatch.setattr(looks, name, lambda *given, name=name: done.append((name, given[2])))
    drawn = {4}
    monkeypatch.setattr(looks, "previews_drawn", lambda run, step: step in drawn)
    for start in (0, 2, 3, 4):
        looks.catch_up(run, None, start)
    assert done == [
        ("previews", 0), ("validate", 2), ("save_on_the_way", 4), ("validate", 4),
    ]  # fmt: skip


def test_what_is_due_after_which_steps():
    recipe = preset("lora-r4").changed(
        schedule={"steps": 10}, saving={"adapters_every": 4},
        previews={"every": 3, "prompts": ["a cat"]},
    )  # fmt: skip
    steps = range(11)
    assert [n for n in steps if looks.previews_due(recipe, n)] == [0, 3, 6, 9, 10]
    assert [n for n in steps[1:] if looks.adapter_due(recipe, n)] == [4, 8]
    even = recipe.changed(schedule={"steps": 8})
    assert not looks.adapter_due(even, 8), "the result's own file is saved then"
    assert [n for n in steps[1:] if looks.looks(recipe, n)] == [3, 4, 6, 8, 9, 10]
