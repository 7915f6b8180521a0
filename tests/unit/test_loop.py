"""Parts of the loop that a CPU cannot show."""

from types import SimpleNamespace

import pytest
from likeness.trainers import loop
from likeness.trainers.errors import CheckpointError, OptimizerMismatch
from likeness.trainers.presets import preset


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"text_encoder": {"train": False}}, ["cpu"]),
        ({"text_encoder": {"last_step": 4}}, []),  # its weights are in checkpoints
        ({"text_encoder": {"train": False}, "objective": {"ema_decay": 0.9}}, []),
        (
            {"text_encoder": {"train": False}, "previews": {"every": 1, "prompts": ["a cat"]}},
            ["cpu"],  # it is fetched for them
        ),
    ],
)
def test_a_text_encoder_that_nothing_asks_any_more_leaves_the_device(changes, moved):
    places = []
    base = SimpleNamespace(text_encoder=SimpleNamespace(to=places.append))
    loop.offload_text_encoder(preset("lora-r4").changed(**changes), base)
    assert places == moved


def test_a_run_takes_no_state_of_more_steps_than_its_own(tmp_path, monkeypatch):
    """The run that it continues went on meanwhile."""
    taken = []
    monkeypatch.setattr(loop, "resumable_runs", lambda recipe, places: [])
    monkeypatch.setattr(loop.checkpoint, "saved_steps", lambda folder: [100, 900])
    monkeypatch.setattr(loop.checkpoint, "load", lambda path, *_: taken.append(path) or (100, []))
    recipe, folder = preset("lora-r4").changed(schedule={"steps": 800}), SimpleNamespace()
    folder.checkpoints = tmp_path
    run = SimpleNamespace(recipe=recipe, folder=folder, places=None, emit=lambda *_, **__: None)
    assert loop.resume(run, None) == 100
    assert [path.name for path in taken] == ["step-000100"]


def test_a_run_began_anew_without_saying_that_no_checkpoint_was_whole(tmp_path, monkeypatch):
    def load(path, state, digest):
        raise CheckpointError(f"{path.name} is damaged.")

    monkeypatch.setattr(loop, "resumable_runs", lambda recipe, places: [])
    monkeypatch.setattr(loop.checkpoint, "saved_steps", lambda folder: [100, 200])
    monkeypatch.setattr(loop.checkpoint, "load", load)
    told, folder = [], SimpleNamespace(checkpoints=tmp_path)
    run = SimpleNamespace(recipe=preset("lora-r4"), folder=folder, places=None, note=told.append)
    assert loop.resume(run, None) == 0
    assert told[:2] == ["step-000200 is damaged.", "step-000100 is damaged."]
    assert "restarts from step 0" in told[2]


def test_a_whole_state_of_another_optimizer_was_told_as_none_and_training_began_anew(
    tmp_path, monkeypatch
):
    def load(path, state, digest):
        raise OptimizerMismatch("the state of AdamW8bit")

    monkeypatch.setattr(loop, "resumable_runs", lambda recipe, places: [])
    monkeypatch.setattr(loop.checkpoint, "saved_steps", lambda folder: [100, 200])
    monkeypatch.setattr(loop.checkpoint, "load", load)
    folder = SimpleNamespace(checkpoints=tmp_path)
    run = SimpleNamespace(recipe=preset("lora-r4"), folder=folder, places=None, note=pytest.fail)
    with pytest.raises(OptimizerMismatch, match="AdamW8bit"):
        loop.resume(run, None)
