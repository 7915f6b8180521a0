"""Deleting what finished runs keep."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from filelock import FileLock
from likeness.cli import main
from likeness.trainers import cleanup
from likeness.trainers.cleanup import apply_keep, reclaimable_runs, remove_checkpoints
from likeness.trainers.errors import RecipeError
from likeness.trainers.recipe import Recipe
from likeness.trainers.run_folder import Result, RunFolder


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Runs by name: finished, stopped before its last step, begun, and finished without a state."""
    root = tmp_path / "likeness" / "runs"
    sizes = {"small": 10, "large": 2000, "stopped": 50, "begun": 50, "bare": 0}
    for seed, (name, size) in enumerate(sizes.items()):
        (root / name / "checkpoints" / "step-000400").mkdir(parents=True)
        (root / name / "checkpoints" / "step-000400" / "weights").write_bytes(bytes(size))
        (root / name / "recipe.json").write_text(Recipe(seed=seed).to_json())

    def result(run):
        stopped = run.path.name == "stopped"
        return None if run.path.name == "begun" else SimpleNamespace(stopped=stopped)

    monkeypatch.setattr(RunFolder, "result", result)
    return root


def test_only_finished_runs_are_asked_to_give_back_and_the_largest_comes_first(runs):
    assert [(one.run.path.name, one.size) for one in reclaimable_runs(runs)] == [
        ("large", 2000),
        ("small", 10),
    ]
    with FileLock(runs / "large" / "lock"):
        assert [one.run.path.name for one in reclaimable_runs(runs)] == ["small"]
        assert not remove_checkpoints(RunFolder(runs / "large"))  # it began meanwhile
    assert (runs / "large" / "checkpoints").is_dir()
    assert not remove_checkpoints(RunFolder(runs / "stopped"))
    assert (runs / "stopped" / "checkpoints").is_dir()
    with pytest.raises(RecipeError, match="--output"):
        reclaimable_runs(runs / "nothing")


def test_a_run_that_is_trained_again_meanwhile_was_told_as_no_run(
    runs, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(RunFolder, "is_busy", lambda run: False)  # it begins after this was asked
    with FileLock(runs / "large" / "lock"), FileLock(runs / "small" / "lock"):
        assert main(["clean", "--output", str(tmp_path), "--yes"]) == 0
    said = capsys.readouterr().out
    assert said.count("being trained") == 2 and "No finished run" not in said
    assert said.splitlines()[-1].split() == ["0.0", "MB", "deleted"]


def test_the_command_lists_and_deletes_only_with_yes(runs, tmp_path, capsys):
    assert main(["clean", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "large" in said and "stopped" not in said and "--yes" in said
    assert (runs / "large" / "checkpoints").is_dir()
    assert main(["clean", "--output", str(tmp_path), "--yes"]) == 0
    assert not (runs / "large" / "checkpoints").exists()
    assert (runs / "large" / "recipe.json").is_file()
    assert (runs / "stopped" / "checkpoints").is_dir()
    capsys.readouterr()
    assert main(["clean", "--output", str(tmp_path)]) == 0
    assert "No finished run" in capsys.readouterr().out


def test_a_state_that_cannot_be_deleted_did_not_keep_the_others(
    runs, tmp_path, capsys, monkeypatch
):
    def remove(folder):
        if folder.parent.name == "large":
            raise PermissionError(13, "Access is denied")
        real(folder)

    real = cleanup.remove_folder
    monkeypatch.setattr(cleanup, "remove_folder", remove)
    assert main(["clean", "--output", str(tmp_path), "--yes"]) == 0
    assert "large  (cannot be deleted: Access is denied)" in capsys.readouterr().out
    assert (runs / "large" / "checkpoints").is_dir()
    assert not (runs / "small" / "checkpoints").exists()


@pytest.mark.parametrize("continues", [True, False])
def test_the_state_of_a_run_is_kept_while_another_may_start_from_it(runs, continues):
    large = RunFolder(runs / "large")
    other = {"continues": large.recipe().digest(), "seed": 99} if continues else {}
    later = large.recipe().changed(schedule={"steps": 900}, **other)
    (runs / "begun" / "recipe.json").write_text(later.to_json())
    (runs / "stopped" / "recipe.json").write_text("{")
    with FileLock(runs / "begun" / "lock"):
        assert not remove_checkpoints(large) and large.checkpoints.is_dir()
        assert "large" not in [one.run.path.name for one in reclaimable_runs(runs)]
    assert remove_checkpoints(large) and not large.checkpoints.exists()


def result_of(run, recipe):
    return Result(
        adapter=run / "a.safetensors", recipe=recipe, folder=run, steps=1, losses=(), seconds={},
        notes=(), precision="fp32", peak_memory=0,
    )  # fmt: skip


def test_keep_0_freed_nothing_of_a_run_that_had_finished(runs, monkeypatch):
    result, none = result_of(runs / "large", Recipe()), Recipe(saving={"keep": 0})
    assert apply_keep(result, Recipe()) == ""
    assert apply_keep(replace(result, stopped=True), none) == ""
    assert (runs / "large" / "checkpoints").is_dir()
    assert "0.0 MB, was deleted" in apply_keep(result, none)
    assert not (runs / "large" / "checkpoints").exists()
    assert apply_keep(result, none) == ""

    def refuse(folder):
        raise PermissionError(13, "Access is denied")

    monkeypatch.setattr(cleanup, "remove_folder", refuse)
    assert "Access is denied" in apply_keep(result_of(runs / "small", Recipe()), none)
