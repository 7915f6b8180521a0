"""Checks before a run, and its folder written. No torch here."""

from __future__ import annotations

from .binding import bind
from .digests import OnRead
from .disk_space import require_disk_space
from .earlier_runs import (
    check_not_busy,
    equivalent_runs,
    find_continued_run,
    record_shared_state,
    saved_states,
)
from .errors import OutOfSpace, RecipeError, RunFailed
from .files import is_disk_full, write_atomic
from .lora_start import check_start_file
from .packages import require_dependencies, require_packages
from .photo_manifest import write_manifest
from .places import Places
from .recipe import Recipe
from .recipe_checks import check_recipe
from .run_folder import RunFolder


def prepare(
    recipe: Recipe, places: Places, *, reuse_stopped: bool = False, on_read: OnRead | None = None
) -> RunFolder:
    """Checks everything that can be checked without torch, and writes the run folder.

    The folder is `<runs>/<name>-<method>-<digest>`, so equal recipes and inputs share one. If an
    equivalent run of any name has finished (with `reuse_stopped`, also if it was stopped and
    saved), its folder is returned unchanged. `on_read` as in `bind`.
    Raises a LikenessError; then nothing has been written.
    """
    bound = bind(recipe, places, on_read)
    recipe = bound.recipe
    folder = RunFolder(places.runs.resolve() / recipe.run_name())
    if folder.final_result() if reuse_stopped else folder.finished():
        return folder
    reuse_stopped = reuse_stopped and not folder.has_checkpoint()  # else it resumes anyway
    others = equivalent_runs(recipe, places)
    for one in others:
        if one.final_result() if reuse_stopped else one.finished():
            return one
    check_recipe(recipe)
    if recipe.continues is not None and not folder.has_checkpoint():
        _check_resumable(folder, recipe, places)
    check_start_file(recipe, places)
    require_dependencies()
    require_packages(recipe)
    check_not_busy([folder, *others])
    require_disk_space(recipe, places, folder.checkpoints)
    try:
        write_atomic(folder.recipe_file, recipe.to_json())
        write_atomic(folder.places_file, places.absolute().model_dump_json(indent=2))
        write_manifest(folder.photos_file, bound.photos, bound.class_images)
        record_shared_state(folder, recipe, places)
    except OSError as error:
        kind = OutOfSpace if is_disk_full(error) else RunFailed
        raise kind(f"The run folder {folder.path} cannot be written: {error}") from None
    return folder


def _check_resumable(folder: RunFolder, recipe: Recipe, places: Places) -> None:
    """Raises RecipeError unless the continued run has a state and steps are to be added to it."""
    earlier = find_continued_run(recipe, places)
    steps = earlier.completed_steps()
    if steps >= recipe.schedule.steps:
        raise RecipeError(
            f"schedule.steps is {recipe.schedule.steps}, but the run it continues has "
            f"{steps} already: give the total of old and new steps."
        )
    if not saved_states(folder, recipe, places):
        raise RecipeError(
            f"The run {earlier.path.name} has no training state to continue from: it was trained "
            "with saving.keep 0, or its states were deleted."
        )
