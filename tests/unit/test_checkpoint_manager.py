import errno
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from likeness.trainers import checkpoint, checkpoint_manager
from likeness.trainers.errors import CheckpointError, Diverged, OutOfSpace
from likeness.trainers.recipe import Recipe
from likeness.trainers.run_folder import RunFolder, saved_steps


@pytest.fixture
def parts(tmp_path):
    """A run and a state that are just enough to save."""
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([weight])
    state = checkpoint.TrainingState(
        {"unet.w": weight}, optimizer, torch.amp.GradScaler(enabled=False), None
    )
    run = SimpleNamespace(
        folder=RunFolder(tmp_path),
        recipe=Recipe(),
        losses=[],
        emit=lambda *a, **k: None,
        accelerator=SimpleNamespace(
            is_main_process=True, wait_for_everyone=lambda: None, num_processes=1
        ),
    )
    return run, state


def kept(run):
    return saved_steps(run.folder.checkpoints)


@pytest.mark.parametrize("keep", [0, 1])
def test_the_last_checkpoint_goes_only_after_the_next_is_proven(parts, keep):
    run, state = parts
    run.recipe = run.recipe.changed(saving={"keep": keep})  # 0: once the run has finished
    checkpoints = checkpoint_manager.CheckpointManager(run, state)
    checkpoints.save(3)
    checkpoints.confirm(5)
    checkpoints.save(6)
    assert kept(run) == [3, 6]
    checkpoints.confirm(6)
    assert kept(run) == [3, 6]
    checkpoints.confirm(7)
    assert kept(run) == [6]


def test_where_the_training_diverges_the_unproven_one_goes(parts):
    run, state = parts
    checkpoints = checkpoint_manager.CheckpointManager(run, state)
    checkpoints.save(3)
    with pytest.raises(Diverged), checkpoints.discard_on_divergence():
        raise Diverged("it did")
    assert kept(run) == [3]  # the only one
    checkpoints.confirm(4)
    checkpoints.save(6)
    with pytest.raises(Diverged), checkpoints.discard_on_divergence():
        raise Diverged("it did")
    assert kept(run) == [3]


def test_unsound_weights_are_never_saved(parts):
    run, state = parts
    checkpoints = checkpoint_manager.CheckpointManager(run, state)
    with torch.no_grad():
        state.parameters["unet.w"].fill_(float("nan"))
    with pytest.raises(Diverged):
        checkpoints.save(3)
    assert kept(run) == []


@pytest.mark.parametrize(
    ("error", "needed", "ends"),
    [
        (PermissionError(13, "The process cannot access the file"), False, None),
        (PermissionError(13, "The process cannot access the file"), True, CheckpointError),
        (OSError(errno.ENOSPC, "No space left on device"), False, OutOfSpace),
        (OSError(errno.EIO, "Input/output error"), False, CheckpointError),
    ],
    ids=["held", "held and needed", "full", "broken"],
)
def test_a_scanner_that_held_a_checkpoint_ended_the_run(parts, monkeypatch, error, needed, ends):
    def refuse(partial, target):
        raise error

    run, state = parts
    run.note, notes = (lambda text: notes.append(text)), []
    checkpoints = checkpoint_manager.CheckpointManager(run, state)
    checkpoints.save(3)
    with monkeypatch.context() as windows:
        windows.setattr(checkpoint, "move_folder", refuse)
        with pytest.raises(ends) if ends else nullcontext():
            checkpoints.save(6, needed=needed)
    assert kept(run) == [3] and len(notes) == (ends is None)
    checkpoints.confirm(7)
    assert kept(run) == [3], "what was not written proves nothing old"
    checkpoints.save(9, needed=needed)
    checkpoints.confirm(10)
    assert kept(run) == [9]


def test_a_run_that_saves_at_its_end_is_late_after_five_minutes_or_fifty_savings(
    parts, monkeypatch
):
    run, state = parts
    clock = [1000.0]
    monkeypatch.setattr(checkpoint_manager.time, "monotonic", lambda: clock[0])
    checkpoints = checkpoint_manager.CheckpointManager(run, state)
    clock[0] += 299
    assert not checkpoints.save_due()
    clock[0] += 2
    assert checkpoints.save_due()
    run.emit = lambda *a, **k: clock.__setitem__(0, clock[0] + 10)  # saving takes 10 s
    checkpoints.save(3)
    clock[0] += 490
    assert not checkpoints.save_due()
    clock[0] += 20
    assert checkpoints.save_due()
    run.recipe = Recipe().changed(saving={"every": 100})
    assert not checkpoints.save_due()
