"""The folder of a run: its files, recipe, result and saved states. No torch here."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from .errors import RecipeError
from .files import write_atomic
from .places import Places, resolve_adapter
from .recipe import Recipe, format_validation_error, read_recipe


@dataclass(frozen=True)
class Result:
    """The result of a run. `losses` has one value per step.

    `seconds`, one per stage, `peak_memory` in bytes and `notes` are of the last attempt.

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
    def shared_state_file(self) -> Path:
        """The training state of a run with other `schedule.steps` that this one may start from."""
        return self.path / "shared-state.json"

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

    def saved_steps(self) -> list[int]:
        """Steps of its checkpoints, ascending."""
        return saved_steps(self.checkpoints)

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return bool(self.saved_steps())

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


def saved_steps(checkpoints: Path) -> list[int]:
    """Steps of a folder's checkpoints, ascending."""
    names = (p.name for p in checkpoints.glob("step-*") if (p / "state.json").is_file())
    return sorted(int(n[5:]) for n in names if re.fullmatch(r"step-\d{6,}", n))
