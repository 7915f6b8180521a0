"""The runs below ComfyUI's output folder, and what they leave there."""

from __future__ import annotations

import os
from pathlib import Path

from ..trainers.errors import RecipeError
from ..trainers.places import runs_folder
from ..trainers.runs import RunFolder
from .names import inside, is_plain

NEW = "a new training"

# Stopped runs whose other steps were asked for since ComfyUI started: what their nodes gave is
# not to be kept then.
asked_to_go_on: list[str] = []


def run_names(output: Path) -> list[str]:
    """Names of the finished runs, the newest first."""
    try:
        entries = [Path(entry) for entry in os.scandir(runs_folder(output)) if entry.is_dir()]
        finished = [path for path in entries if RunFolder(path).result_file.is_file()]
        return [p.name for p in sorted(finished, key=lambda p: p.stat().st_mtime, reverse=True)]
    except OSError:
        return []


def find_run(output: Path, name: str) -> RunFolder:
    """The run of a name. Raises LikenessError."""
    path = inside(runs_folder(output), name)
    if not path.is_dir():
        raise RecipeError(
            f"There is no training {name!r}: press R in the browser to list those that are there, "
            "and choose one, or a new training."
        )
    return RunFolder(path)


def run_of_id(output: Path, run_id: str) -> RunFolder | None:
    """The run whose folder has the name; None for any other text. Links are not followed."""
    if not is_plain(run_id) or run_id.startswith("."):
        return None
    run = RunFolder(runs_folder(output) / run_id)
    return run if run.recipe_file.is_file() and not run.path.is_symlink() else None


def run_digest(run: RunFolder) -> str:
    """The digest that a recipe continues from. Raises RecipeError for an unfinished run."""
    if run.result() is None:
        raise RecipeError(
            f"The training {run.path.name} has not finished: queue it again, or choose another."
        )
    return run.recipe().digest()
