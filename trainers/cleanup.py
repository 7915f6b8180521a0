"""Finds and deletes the checkpoints that finished runs keep. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from .disk_space import folder_size
from .errors import RecipeError
from .files import remove_folder
from .recipe import Recipe
from .run_folder import Result, RunFolder


@dataclass(frozen=True)
class ReclaimableRun:
    """A finished run and the size of its checkpoints in bytes."""

    run: RunFolder
    size: int


def reclaimable_runs(runs: Path) -> list[ReclaimableRun]:
    """Finished runs with checkpoints, largest first.

    Excludes runs with steps left, which resume from their checkpoints, runs being trained or
    continued by one that is, and runs whose adapter is missing. Raises RecipeError if the folder
    does not exist.
    """
    found = (ReclaimableRun(run, reclaimable_size(run)) for run in _runs_in(runs))
    return sorted((one for one in found if one.size), key=lambda one: -one.size)


def reclaimable_size(run: RunFolder) -> int:
    """The size of a run's checkpoints in bytes; 0 if they are needed, as above."""
    if run.is_busy() or not run.finished() or _is_being_continued(run):
        return 0
    return folder_size(run.checkpoints)


def _is_being_continued(run: RunFolder) -> bool:
    """Whether a run is being trained that may start from this one's checkpoints."""
    recipe = run.recipe()
    others = (other for other in _runs_in(run.path.parent) if other != run)
    return any(other.is_busy() and _may_start_from(other, recipe) for other in others)


def _may_start_from(run: RunFolder, earlier: Recipe) -> bool:
    """Whether a run continues an earlier one, or differs in what is trained only in its steps."""
    try:
        recipe = run.recipe()
        same_steps = recipe.changed(schedule={"steps": earlier.schedule.steps})
    except RecipeError:
        return False  # of another version, or a field of it needs more steps
    return recipe.continues == earlier.digest() or same_steps.canonical() == earlier.canonical()


def _runs_in(folder: Path) -> Iterator[RunFolder]:
    if not folder.is_dir():
        raise RecipeError(
            f"There is no folder {folder}. Set --output to the folder that contains likeness/runs."
        )
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield RunFolder(path)


def remove_checkpoints(run: RunFolder) -> bool:
    """Deletes a run's checkpoints; its adapter, recipe, losses and previews stay.

    It can then not be continued. Returns False, without a change, if the run is being trained, is
    not finished, or is being continued by another. Raises OSError, on Windows also for a file that
    is open.
    """
    try:
        with FileLock(run.lock, timeout=0):
            if not run.finished() or _is_being_continued(run):
                return False
            remove_folder(run.checkpoints)
            return True
    except (Timeout, NotImplementedError):  # a file system without locks
        return False


def apply_keep(result: Result, recipe: Recipe) -> str:
    """Deletes the checkpoints of a finished run that is reused for a recipe with ``saving.keep`` 0.

    Returns a note of what was deleted, or why it could not be; "" if there is nothing to delete.
    """
    run = RunFolder(result.folder)
    size = 0 if recipe.saving.keep or result.stopped else reclaimable_size(run)
    if not size:
        return ""
    try:
        deleted = remove_checkpoints(run)
    except OSError as error:
        return f"The training state in {run.checkpoints} cannot be deleted: {error.strerror}."
    freed = f"{size / 1e6:,.1f} MB"
    return f"saving.keep is 0: its training state, {freed}, was deleted." if deleted else ""
