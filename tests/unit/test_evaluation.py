"""What a run shows and leaves on its way, and when."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from likeness.trainers import evaluation
from likeness.trainers.cuda_graphs import GraphedForwardBackward
from likeness.trainers.presets import preset
from likeness.trainers.recipe import Recipe


class Held(GraphedForwardBackward):
    """Stands for recordings that hold memory until they are forgotten."""

    def __init__(self):
        self.held = True

    def reset(self):
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
    return SimpleNamespace(recipe=recipe, previews_disabled=False)


def test_previews_without_room_beside_recordings_are_drawn_without_those(run, monkeypatch):
    compute, done = Held(), []

    def preview(*_):
        if compute.held:
            out_of_memory()
        done.append("preview")

    monkeypatch.setattr(evaluation, "save_intermediate_adapter", lambda *_: done.append("adapter"))
    monkeypatch.setattr(evaluation, "validate", lambda *_: done.append("validation"))
    monkeypatch.setattr(evaluation, "preview", preview)
    evaluation.run_evaluations(run, None, 4, compute)
    assert done == ["adapter", "validation", "preview"], "each once"


@pytest.mark.parametrize("compute", [Held(), len])
def test_what_still_fails_without_recordings_is_an_error(run, monkeypatch, compute):
    monkeypatch.setattr(evaluation, "save_intermediate_adapter", out_of_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluation.run_evaluations(run, None, 4, compute)


def test_previews_for_which_there_is_no_memory_end_no_run(run, monkeypatch):
    said, asked = [], []

    def preview(*_):
        asked.append(1)
        out_of_memory()

    run.note = said.append
    monkeypatch.setattr(evaluation, "preview", preview)
    evaluation.previews(run, None, 0)
    evaluation.previews(run, None, 4, Held())
    assert len(said) == 1 and "512x512" in said[0]
    assert len(asked) == 1, "and they are not tried again"
    run.previews_disabled = False
    monkeypatch.setattr(evaluation, "preview", lambda *_: [][0])
    with pytest.raises(IndexError):
        evaluation.previews(run, None, 4)


@pytest.mark.parametrize(("ema", "trained"), [(None, True), ("mean", True), ("mean", False)])
def test_a_validation_of_averaged_weights_asks_their_text_encoder_anew(monkeypatch, ema, trained):
    """The prompts that a frozen text encoder gave are not those of its running mean."""
    asked, nothing = [], nullcontext()
    training = SimpleNamespace(
        learner=SimpleNamespace(
            device=None,
            eval_mode=lambda reencode_prompts: asked.append(reencode_prompts) or nothing,
        ),
        state=SimpleNamespace(ema=ema), dataset=None,
    )  # fmt: skip
    monkeypatch.setattr(evaluation, "ema_weights", lambda state: nullcontext())
    monkeypatch.setattr(evaluation, "validation_samples", lambda *_: [0])
    monkeypatch.setattr(evaluation, "collate", lambda *_: None)
    monkeypatch.setattr(evaluation, "compute_losses", lambda *_: torch.ones(1))
    recipe = Recipe().changed(text_encoder={"train": trained})
    evaluation.validate(SimpleNamespace(recipe=recipe, emit=lambda *_, **__: None), training, 4)
    assert asked == [ema is not None and trained]


def test_what_is_away_from_the_device_is_there_for_previews_alone():
    here, away = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1, device="meta")
    moved = []
    for name, part in (("here", here), ("away", away)):
        device = torch.device("cpu" if name == "here" else "meta")
        part.device = device
        part.to = lambda to, name=name: moved.append((name, str(to)))
    with evaluation.on_device(torch.device("cpu", 0), here, away):
        assert moved == [("away", "cpu:0")]
    assert moved == [("away", "cpu:0"), ("away", "cpu")]


def test_a_validation_due_where_a_run_was_left_was_never_done(run, monkeypatch):
    done = []
    for name in ("previews", "save_intermediate_adapter", "validate"):
        monkeypatch.setattr(
            evaluation, name, lambda *given, name=name: done.append((name, given[2]))
        )
    drawn = {4}
    monkeypatch.setattr(evaluation, "has_previews", lambda run, step: step in drawn)
    for start in (0, 2, 3, 4):
        evaluation.evaluate_on_resume(run, None, start)
    assert done == [
        ("previews", 0), ("validate", 2), ("save_intermediate_adapter", 4), ("validate", 4),
    ]  # fmt: skip


def test_what_is_due_after_which_steps():
    recipe = preset("lora-r4").changed(
        schedule={"steps": 10}, saving={"adapters_every": 4},
        previews={"every": 3, "prompts": ["a cat"]},
    )  # fmt: skip
    steps = range(11)
    assert [n for n in steps if evaluation.are_previews_due(recipe, n)] == [0, 3, 6, 9, 10]
    assert [n for n in steps[1:] if evaluation.is_adapter_due(recipe, n)] == [4, 8]
    even = recipe.changed(schedule={"steps": 8})
    assert not evaluation.is_adapter_due(even, 8), "the result's own file is saved then"
    assert [n for n in steps[1:] if evaluation.is_evaluation_due(recipe, n)] == [3, 4, 6, 8, 9, 10]
