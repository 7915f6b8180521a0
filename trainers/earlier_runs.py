"""Other runs whose result or training state a run may use. No torch here."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import RecipeError, RunBusy
from .files import write_atomic
from .places import Places
from .recipe import Recipe
from .run_folder import Result, RunFolder

# Schedules whose rate at a step does not depend on the number of steps.
_OPEN_ENDED = ("constant", "constant_with_warmup")
_LOCK_SECONDS = 0.2  # longer than a look at a run's lock takes


@dataclass(frozen=True)
class SavedState:
    """A training state of a run, after `step` steps.

    `shared`: of a run that differs in `schedule.steps`, and that may have used another memory tier.
    """

    run: RunFolder
    recipe: Recipe
    step: int
    shared: bool = False


def equivalent_runs(recipe: Recipe, places: Places) -> list[RunFolder]:
    """Other runs that train exactly as a bound recipe does: those of its name first, newest first.

    They differ in name, previews, validation, or how their state is saved.
    """
    canonical, own = recipe.canonical().digest(), recipe.digest()
    found = []
    for folder, other in _runs_like(recipe, places):
        if other.digest() != own and other.canonical().digest() == canonical:
            newest = other.name == recipe.name, folder.recipe_file.stat().st_mtime
            found.append((newest, folder))
    return [folder for _, folder in sorted(found, key=lambda one: one[0], reverse=True)]


def reused_message(result: Result, recipe: Recipe) -> str:
    """A note that an equivalent run's result is reused; "" if it has the recipe's name."""
    if result.recipe.name == recipe.name:
        return ""
    return (
        f"Already trained as {result.recipe.name!r}: its file {result.adapter.name} is used. Raise "
        "attempt to train again under the new name."
    )


def check_not_busy(folders: Iterable[RunFolder]) -> None:
    """Raises RunBusy if a process trains one of these equivalent runs: one may start from
    checkpoints that another deletes.
    """
    for folder in folders:
        if folder.is_busy():
            raise RunBusy(busy_message(folder))


def busy_message(folder: RunFolder) -> str:
    """The message if another process trains the same run."""
    return (
        f"The run {folder.path.name} is already being trained by another process (another ComfyUI "
        "or a terminal). Wait for it and queue again to use its result, or stop it there."
    )


def saved_states(folder: RunFolder, recipe: Recipe, places: Places) -> list[SavedState]:
    """The training states that the run of a bound recipe may start from, the best first.

    First those of the trajectory: its own, those of equivalent runs, and the one that
    `record_shared_state` chose; the highest step first. Then those of the run it continues, which
    may be missing if there are others. Raises RecipeError as `find_continued_run`.
    """
    runs = [folder, *equivalent_runs(recipe, places)]
    found = [*_states(runs, recipe), *_shared_states(folder)]
    found.sort(key=lambda state: state.step, reverse=True)
    if recipe.continues is None:
        return found
    try:
        continued = find_continued_run(recipe, places)
    except RecipeError:
        if found:
            return found
        raise
    return [*found, *reversed([*_states([continued], recipe)])]


def _states(runs: Iterable[RunFolder], recipe: Recipe) -> Iterator[SavedState]:
    """States of runs, without those after a recipe's last step: a run may have trained on since."""
    for run in runs:
        for step in run.saved_steps():
            if step <= recipe.schedule.steps:
                yield SavedState(run, run.recipe(), step)


def record_shared_state(folder: RunFolder, recipe: Recipe, places: Places) -> None:
    """Chooses, before a run, the best state of the runs that differ only in `schedule.steps`.

    It is recorded if it is ahead of all others, so that all processes of the run start from the
    same. Raises OSError.
    """
    own = max((state.step for state in saved_states(folder, recipe, places)), default=0)
    others = [] if _why_not_shared(recipe) else runs_of_other_lengths(recipe, places)
    states = _states((run for run in others if not _is_training(run)), recipe)
    best = max(states, key=lambda state: state.step, default=None)
    if best is None or best.step <= own:
        return forget_shared_state(folder)
    data = {"run": best.run.path.name, "step": best.step}
    write_atomic(folder.shared_state_file, json.dumps(data))


def forget_shared_state(folder: RunFolder) -> None:
    """Has the run start from its own states, or at step 0. Raises OSError."""
    folder.shared_state_file.unlink(missing_ok=True)


def _is_training(run: RunFolder) -> bool:
    """Whether a process trains a run; others briefly take its lock to see that."""
    if not run.is_busy():
        return False
    time.sleep(_LOCK_SECONDS)
    return run.is_busy()


def _shared_states(folder: RunFolder) -> list[SavedState]:
    """The recorded state of another run, if it still exists."""
    try:
        data = json.loads(folder.shared_state_file.read_text(encoding="utf-8"))
        run = RunFolder(folder.path.parent / Path(str(data["run"])).name)
        step = int(data["step"])
        return [SavedState(run, run.recipe(), step, True)] if step in run.saved_steps() else []
    except (OSError, ValueError, LookupError, TypeError, RecipeError):
        return []


def _why_not_shared(recipe: Recipe) -> str | None:
    """Why runs that differ only in `schedule.steps` do not share states; None if they do."""
    if recipe.schedule.lr_scheduler not in _OPEN_ENDED:
        return f"the learning rate of the schedule {recipe.schedule.lr_scheduler!r} spans all steps"
    if recipe.saving.adapters_every:
        return "adapters are to be saved from the first steps on"
    return None


def unused_state_note(recipe: Recipe, places: Places) -> str | None:
    """A note on the run with the most steps that this one would resume from if its rate, or the
    files to be saved, did not depend on the steps; None if there is none.
    """
    why = _why_not_shared(recipe)
    if why is None or recipe.continues is not None:
        return None
    found = [*_states(runs_of_other_lengths(recipe, places), recipe)]
    if not found:
        return None
    best = max(found, key=lambda state: state.step)
    return (
        f"The run {best.run.path.name}, which differs only in schedule.steps, has trained "
        f"{best.step} steps. This run starts at step 0 all the same, because {why}. To train that "
        "one further, choose it in continue_from of Train Options, or give its folder to "
        "'likeness train' with --more."
    )


def runs_of_other_lengths(recipe: Recipe, places: Places) -> list[RunFolder]:
    """Runs of recipes that differ only in `schedule.steps`, in no order."""
    steps, canonical = recipe.schedule.steps, recipe.canonical()

    def is_alike(other: Recipe) -> bool:
        if other.schedule.steps == steps:
            return False
        try:
            return other.changed(schedule={"steps": steps}).canonical() == canonical
        except RecipeError:
            return False  # a field of it needs more steps

    return [run for run, other in _runs_like(recipe, places) if is_alike(other)]


def _runs_like(recipe: Recipe, places: Places) -> Iterator[tuple[RunFolder, Recipe]]:
    """Runs of a recipe's method on its base and photographs, and their recipes."""
    inputs = recipe.base.digest, recipe.subject.digest
    for path in places.runs.glob(f"*-{recipe.label()}-*"):
        folder = RunFolder(path)
        try:
            other = folder.recipe()
        except RecipeError:
            continue  # of another version, or not a run folder
        if (other.base.digest, other.subject.digest) == inputs:
            yield folder, other


def find_continued_run(recipe: Recipe, places: Places) -> RunFolder:
    """The earlier run that `recipe.continues` names.

    Raises RecipeError if it is missing, or if its state does not fit because it trained other
    weights or used another optimizer.
    """
    folder = find_run(recipe.continues or "", places)
    _check_compatible(recipe, folder.recipe())
    return folder


def find_run(digest: str, places: Places) -> RunFolder:
    """The run with a recipe's digest. Raises RecipeError if there is none in the runs folder."""
    for path in sorted(places.runs.glob(f"*-{digest[:8]}")):
        folder = RunFolder(path)
        if folder.recipe().digest() == digest:
            return folder
    raise RecipeError(
        f"The run to continue, whose folder name ends with {digest[:8]}, is not in {places.runs}."
    )


def _check_compatible(recipe: Recipe, earlier: Recipe) -> None:
    def fixed(r: Recipe) -> dict[str, Any]:
        return {
            "base": r.base,
            "method": r.without_start().method,
            "text_encoder.train": r.text_encoder.train,
            "optimizer.name": r.optimizer.name,
            "objective.ema_decay": r.objective.ema_decay is None,
        }

    now, then = fixed(recipe), fixed(earlier)
    changed = [name for name in now if now[name] != then[name]]
    if changed:
        raise RecipeError(
            f"A run that continues another must keep its {', '.join(changed)}: restore the earlier "
            "values, or clear continues to train from the start."
        )
