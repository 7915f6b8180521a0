"""Finds and deletes the checkpoints that finished runs keep. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
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
    kept = [run for run in _runs_in(runs) if run.checkpoints.is_dir()]
    busy = _busy_recipes(runs) if kept else []
    found = (ReclaimableRun(run, _size(run, busy)) for run in kept)
    return sorted((one for one in found if one.size), key=lambda one: -one.size)


def reclaimable_size(run: RunFolder) -> int:
    """The size of a run's checkpoints in bytes; 0 if they are needed, as above."""
    return _size(run, _busy_recipes(run.path.parent)) if run.checkpoints.is_dir() else 0


def _size(run: RunFolder, busy: Sequence[Recipe]) -> int:
    """As `reclaimable_size`, with the recipes that are being trained."""
    if run.is_busy() or not run.finished() or _is_needed(run, busy):
        return 0
    return folder_size(run.checkpoints)


def _busy_recipes(runs: Path) -> list[Recipe]:
    """The recipes that are being trained now."""
    found = []
    for run in _runs_in(runs):
        if run.is_busy():
            with suppress(RecipeError):  # of another version
                found.append(run.recipe())
    return found


def _is_needed(run: RunFolder, busy: Sequence[Recipe]) -> bool:
    """Whether one of these recipes may start from a run's checkpoints."""
    earlier = run.recipe()
    return any(_may_start_from(recipe, earlier) for recipe in busy if recipe != earlier)


def _may_start_from(recipe: Recipe, earlier: Recipe) -> bool:
    """Whether a run continues an earlier one, or differs in what is trained only in its steps."""
    if recipe.continues == earlier.digest():
        return True
    try:
        same_steps = recipe.changed(schedule={"steps": earlier.schedule.steps})
    except RecipeError:
        return False  # a field of it needs more steps
    return same_steps.canonical() == earlier.canonical()


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
            if not run.finished() or _is_needed(run, _busy_recipes(run.path.parent)):
                return False
            remove_folder(run.checkpoints)
            return True
    except (Timeout, NotImplementedError):  # a file system without locks
        return False


def apply_keep(result: Result, recipe: Recipe) -> str:
    """Deletes the checkpoints of a finished run that is reused for a recipe with ``saving.keep`` 0.

    Not those of a run with another name than the recipe's, which may want them. Returns a note of
    what was deleted, or why it could not be; "" if there is nothing to delete.
    """
    run = RunFolder(result.folder)
    wanted = recipe.saving.keep or result.stopped or recipe.name != result.recipe.name
    size = 0 if wanted else reclaimable_size(run)
    if not size:
        return ""
    try:
        deleted = remove_checkpoints(run)
    except OSError as error:
        return f"The training state in {run.checkpoints} cannot be deleted: {error.strerror}."
    freed = f"{size / 1e6:,.1f} MB"
    return f"saving.keep is 0: its training state, {freed}, was deleted." if deleted else ""
