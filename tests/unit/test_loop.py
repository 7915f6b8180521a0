"""Parts of the loop that a CPU cannot show."""

from types import SimpleNamespace

import pytest
from likeness.trainers import loop
from likeness.trainers.earlier_runs import SavedState
from likeness.trainers.errors import CheckpointError, OptimizerMismatch
from likeness.trainers.presets import preset


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"text_encoder": {"train": False}}, ["cpu"]),
        ({"text_encoder": {"last_step": 4}}, []),  # its weights are in checkpoints
        ({"text_encoder": {"train": False}, "objective": {"ema_decay": 0.9}}, ["cpu"]),
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


def saved(path, *steps):
    """States of a run, as far as `resume` asks."""
    run = SimpleNamespace(checkpoints=path, path=path)
    return [SavedState(run, preset("lora-r4"), step) for step in steps]


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A run whose states are those of steps 200 and 100, with a function that loads them."""

    def begin(load):
        states = saved(tmp_path, 200, 100)
        monkeypatch.setattr(loop, "saved_states", lambda *_: states)
        monkeypatch.setattr(loop.checkpoint, "load", load)
        folder = SimpleNamespace(path=tmp_path)
        return SimpleNamespace(
            recipe=preset("lora-r4"),
            folder=folder,
            places=None,
            accelerator=SimpleNamespace(num_processes=2),
        )

    return begin


def test_a_run_began_anew_without_saying_that_no_checkpoint_was_whole(begun):
    def load(path, state, digest):
        raise CheckpointError(f"{path.name} is damaged.")

    told, run = [], begun(load)
    run.note = told.append
    assert loop.resume(run, None) == 0
    assert told[:2] == ["step-000200 is damaged.", "step-000100 is damaged."]
    assert "restarts from step 0" in told[2]


def test_a_whole_state_of_another_optimizer_was_told_as_none_and_training_began_anew(begun):
    def load(path, state, digest):
        raise OptimizerMismatch("the state of AdamW8bit")

    run = begun(load)
    run.note = pytest.fail
    with pytest.raises(OptimizerMismatch, match="AdamW8bit"):
        loop.resume(run, None)


def test_a_run_says_that_another_number_of_processes_trained_it_so_far(begun, monkeypatch):
    monkeypatch.setattr(loop.checkpoint, "saved_processes", lambda path: 1)
    told, run = [], begun(lambda path, *_: (int(path.name[5:]), []))
    run.note, run.emit = told.append, lambda kind, text: None
    assert loop.resume(run, None) == 200
    assert len(told) == 1 and "1 process trained, now 2 do" in told[0]


def test_a_run_says_from_which_other_run_it_resumes(begun, tmp_path):
    told, run = [], begun(lambda path, *_: (int(path.name[5:]), []))
    run.emit = lambda kind, text: told.append(text)
    assert loop.resume(run, None) == 200
    run.folder.path = tmp_path / "longer"
    assert loop.resume(run, None) == 200
    assert told == [
        "Resuming from step 200.", f"Resuming from step 200 of the run {tmp_path.name}."
    ]  # fmt: skip
