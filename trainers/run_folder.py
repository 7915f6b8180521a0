"""The run folder, the checks before a run, and the runs it may reuse or resume. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from .binding import bind
from .digests import OnRead
from .disk_space import require_disk_space
from .errors import OutOfSpace, RecipeError, RunBusy, RunFailed
from .files import is_disk_full, write_atomic
from .packages import require_dependencies, require_packages
from .photo_manifest import write_manifest
from .places import Places, resolve_adapter
from .recipe import Recipe, format_validation_error, read_recipe
from .recipe_checks import check_recipe


@dataclass(frozen=True)
class Result:
    """The result of a run. `losses` has one value per step; `seconds` one per stage.

    `stopped` means that it was asked to stop and save before its last step.
    """

    adapter: Path
    recipe: Recipe
    folder: Path
    steps: int
    losses: tuple[float, ...]
    seconds: dict[str, float]
    notes: tuple[str, ...]
    precision: str
    peak_memory: int
    stopped: bool = False
    reused: bool = False


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, by role."""

    path: Path

    @property
    def recipe_file(self) -> Path:
        """The bound recipe."""
        return self.path / "recipe.json"

    @property
    def places_file(self) -> Path:
        """The paths of inputs and outputs on this machine."""
        return self.path / "places.json"

    @property
    def photos_file(self) -> Path:
        """The manifest of the images that were checked before the run."""
        return self.path / "photos.json"

    @property
    def events(self) -> Path:
        """One event a line."""
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        """All output of the run's process."""
        return self.path / "log.txt"

    @property
    def stop(self) -> Path:
        """The stop flag: a file whose presence asks the run to stop and save."""
        return self.path / "stop"

    @property
    def resume_flag(self) -> Path:
        """A file that asks for the remaining steps of a run that was stopped and saved."""
        return self.path / "go-on"

    @property
    def lock(self) -> Path:
        """The lock file, held while a process trains here."""
        return self.path / "lock"

    @property
    def checkpoints(self) -> Path:
        """Training checkpoints."""
        return self.path / "checkpoints"

    @property
    def tier_file(self) -> Path:
        """The memory tier of the run."""
        return self.path / "tier.json"

    @property
    def samples(self) -> Path:
        """Preview images."""
        return self.path / "samples"

    @property
    def result_file(self) -> Path:
        """The result, once there is one."""
        return self.path / "result.json"

    def recipe(self) -> Recipe:
        """Reads the recipe. Raises RecipeError."""
        return read_recipe(self.recipe_file)

    def places(self) -> Places:
        """Reads the places. Raises RecipeError."""
        try:
            return Places.model_validate_json(self.places_file.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise RecipeError(format_validation_error(error, "places file")) from None
        except OSError as error:
            raise RecipeError(f"{self.places_file} cannot be read: {error}") from None

    def write_result(self, result: Result) -> None:
        """Writes `result.json` atomically and removes the resume flag."""
        data = asdict(result) | {"adapter": str(result.adapter), "version": 1}
        for key in ("recipe", "folder", "reused"):
            del data[key]
        write_atomic(self.result_file, json.dumps(data, indent=2))
        self.resume_flag.unlink(missing_ok=True)

    def result(self) -> Result | None:
        """The result, or None if there is none, it is damaged, or its adapter file is missing.

        If the output folder was moved, the adapter is found at the same place inside it.
        """
        try:
            data = json.loads(self.result_file.read_text(encoding="utf-8"))
            if data.pop("version") != 1:
                return None
            data |= {
                "adapter": resolve_adapter(data["adapter"], self.path),
                "steps": int(data["steps"]),
            }
            data["losses"] = tuple(float(loss) for loss in data["losses"])
            data["seconds"] = {str(key): float(s) for key, s in data["seconds"].items()}
            data["notes"] = tuple(str(note) for note in data["notes"])
            data["peak_memory"] = int(data["peak_memory"])
            result = Result(recipe=self.recipe(), folder=self.path, **data)
        except (*_READ_ERRORS, RecipeError):
            return None
        return result if result.adapter.is_file() else None

    def finished(self) -> Result | None:
        """The result if all steps were trained, else None."""
        result = self.result()
        return None if result is None or result.stopped else result

    def final_result(self) -> Result | None:
        """The result of all steps, or of fewer if the run was stopped and saved and is not to
        resume.
        """
        return self.finished() if self.resume_flag.exists() else self.result()

    def completed_steps(self) -> int:
        """The steps of the result; those planned if there is none."""
        result = self.result()
        return self.recipe().schedule.steps if result is None else result.steps

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return any(self.checkpoints.glob("step-*/state.json"))

    def is_busy(self) -> bool:
        """Whether a process is training here now."""
        if not self.lock.exists():
            return False
        lock = FileLock(self.lock, timeout=0)
        try:
            lock.acquire()
        except (Timeout, OSError, NotImplementedError):
            return True
        lock.release()
        return False


# Raised when reading JSON of an unexpected structure.
_READ_ERRORS = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError),
    *(OverflowError, RecursionError),
)


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
        _check_resumable(recipe, places)
    require_dependencies()
    require_packages(recipe)
    check_not_busy([folder, *others])
    require_disk_space(recipe, places, folder.checkpoints)
    try:
        write_atomic(folder.recipe_file, recipe.to_json())
        write_atomic(folder.places_file, places.absolute().model_dump_json(indent=2))
        write_manifest(folder.photos_file, bound.photos, bound.class_images)
    except OSError as error:
        kind = OutOfSpace if is_disk_full(error) else RunFailed
        raise kind(f"The run folder {folder.path} cannot be written: {error}") from None
    return folder


def equivalent_runs(recipe: Recipe, places: Places) -> list[RunFolder]:
    """Other runs that train exactly as a bound recipe does: those of its name first, newest first.

    They differ in name, previews, validation, or how their state is saved.
    """
    canonical, own = recipe.canonical().digest(), recipe.digest()
    found = []
    for path in places.runs.glob(f"*-{recipe.label()}-*"):
        folder = RunFolder(path)
        try:
            other = folder.recipe()
        except RecipeError:
            continue  # of another version, or not a run folder
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


def find_continued_run(recipe: Recipe, places: Places) -> RunFolder:
    """The earlier run that `recipe.continues` names.

    Raises RecipeError if it is missing, or if its state does not fit because it trained other
    weights or used another optimizer.
    """
    folder = find_run(recipe.continues or "", places)
    _check_compatible(recipe, folder.recipe())
    return folder


def resumable_runs(recipe: Recipe, places: Places) -> list[RunFolder]:
    """The other runs whose state a run may start from: equivalent ones, then the one it continues,
    which may be missing if the run has a checkpoint of its own.

    Raises RecipeError as `find_continued_run`.
    """
    found = equivalent_runs(recipe, places)
    if recipe.continues is None:
        return found
    try:
        return [*found, find_continued_run(recipe, places)]
    except RecipeError:
        if RunFolder(places.runs / recipe.run_name()).has_checkpoint():
            return found
        raise


def _check_resumable(recipe: Recipe, places: Places) -> None:
    """Raises RecipeError unless the continued run has a state and steps are to be added to it."""
    earlier = find_continued_run(recipe, places)
    steps = earlier.completed_steps()
    if steps >= recipe.schedule.steps:
        raise RecipeError(
            f"schedule.steps is {recipe.schedule.steps}, but the run it continues has "
            f"{steps} already: give the total of old and new steps."
        )
    if not any(run.has_checkpoint() for run in resumable_runs(recipe, places)):
        raise RecipeError(
            f"The run {earlier.path.name} has no training state to continue from: it was trained "
            "with saving.keep 0, or its states were deleted."
        )


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
            "method": r.method,
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
