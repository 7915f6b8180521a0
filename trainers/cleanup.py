"""What finished runs keep to be continued from, and giving its room back. No torch here."""

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
    """The state of a finished run: its checkpoints' size in bytes."""

    run: RunFolder
    size: int


def reclaimable_runs(runs: Path) -> list[ReclaimableRun]:
    """What the finished runs keep, the largest first.

    A run that has steps left is no finished one, for its state is what it goes on from; nor is one
    that is trained now, or whose adapter is gone.
    """
    found = (
        ReclaimableRun(run, folder_size(run.checkpoints))
        for run in _runs_in(runs)
        if not run.is_busy() and run.finished()
    )
    return sorted((one for one in found if one.size), key=lambda one: -one.size)


def _runs_in(folder: Path) -> Iterator[RunFolder]:
    if not folder.is_dir():
        raise RecipeError(f"There is no folder {folder}: --output names the one that holds it.")
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield RunFolder(path)


def remove_checkpoints(run: RunFolder) -> bool:
    """Deletes a run's checkpoints; its adapter, recipe, losses and previews stay.

    It can then not be continued. One that a process trains meanwhile is left as it is: False.
    Raises OSError, on Windows for one with a file that is open.
    """
    try:
        with FileLock(run.lock, timeout=0):
            if not run.finished():
                return False
            remove_folder(run.checkpoints)
            return True
    except (Timeout, NotImplementedError):  # of a file system without locks
        return False
