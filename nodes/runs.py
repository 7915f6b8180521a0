"""The training runs below ComfyUI's output folder."""

from __future__ import annotations

import os
from pathlib import Path

from ..trainers.errors import RecipeError
from ..trainers.places import runs_folder
from ..trainers.run_folder import RunFolder
from .paths import is_safe_name, safe_join

NEW_RUN = "a new training"

# Stopped runs asked to resume since ComfyUI started: cached results of their nodes are stale.
resume_requests: list[str] = []


def run_names(output: Path) -> list[str]:
    """Names of the finished runs, newest first."""
    try:
        entries = [Path(entry) for entry in os.scandir(runs_folder(output)) if entry.is_dir()]
        finished = [path for path in entries if RunFolder(path).result_file.is_file()]
        return [p.name for p in sorted(finished, key=lambda p: p.stat().st_mtime, reverse=True)]
    except OSError:
        return []


def find_run(output: Path, name: str) -> RunFolder:
    """The run called `name`. Raises LikenessError."""
    path = safe_join(runs_folder(output), name)
    if not path.is_dir():
        raise RecipeError(
            f"There is no training {name!r}: press R in the browser to refresh the list and choose "
            f"one, or {NEW_RUN!r}."
        )
    return RunFolder(path)


def find_run_by_id(output: Path, run_id: str) -> RunFolder | None:
    """The run whose folder is called `run_id`, or None. Links are not followed."""
    if not is_safe_name(run_id) or run_id.startswith("."):
        return None
    run = RunFolder(runs_folder(output) / run_id)
    return run if run.recipe_file.is_file() and not run.path.is_symlink() else None


def run_digest(run: RunFolder) -> str:
    """The digest for a recipe's `continues`. Raises RecipeError for an unfinished run."""
    if run.result() is None:
        raise RecipeError(
            f"The training {run.path.name} has not finished: queue it again, or choose another."
        )
    return run.recipe().digest()
