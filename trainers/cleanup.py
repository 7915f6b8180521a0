"""Finds and deletes the checkpoints that finished runs keep. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from .disk_space import folder_size
from .errors import RecipeError
from .files import remove_folder
from .run_folder import RunFolder


@dataclass(frozen=True)
class ReclaimableRun:
    """A finished run and the size of its checkpoints in bytes."""

    run: RunFolder
    size: int


def reclaimable_runs(runs: Path) -> list[ReclaimableRun]:
    """Finished runs with checkpoints, largest first.

    Excludes runs with steps left, which resume from their checkpoints, runs being trained, and
    runs whose adapter is missing. Raises RecipeError if the folder does not exist.
    """
    found = (
        ReclaimableRun(run, folder_size(run.checkpoints))
        for run in _runs_in(runs)
        if not run.is_busy() and run.finished()
    )
    return sorted((one for one in found if one.size), key=lambda one: -one.size)


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

    It can then not be continued. Returns False, without a change, if the run is being trained or
    is not finished. Raises OSError, on Windows also for a file that is open.
    """
    try:
        with FileLock(run.lock, timeout=0):
            if not run.finished():
                return False
            remove_folder(run.checkpoints)
            return True
    except (Timeout, NotImplementedError):  # a file system without locks
        return False
