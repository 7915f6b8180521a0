"""The folder of a run, and how a recipe is bound to files before it starts. No torch here."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .base_file import digest_of, identify, read_shapes
from .errors import OutOfSpace, RecipeError, RunFailed, SubjectError
from .files import write_whole
from .packages import require_packages
from .places import Places
from .recipe import DreamBooth, Recipe, Subject, explain, read_recipe
from .subject import PhotoSet, read_subject

GIGABYTE = 1024**3
_SD15_WEIGHTS = 983e6  # UNet and text encoder


@dataclass(frozen=True)
class Result:
    """What a run gave. `losses` has one value a step; `seconds` one a stage.

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
        """Where inputs and outputs lie on this machine."""
        return self.path / "places.json"

    @property
    def events(self) -> Path:
        """One event a line."""
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        """Everything the run's process printed."""
        return self.path / "log.txt"

    @property
    def stop(self) -> Path:
        """A file whose presence asks the run to stop and save."""
        return self.path / "stop"

    @property
    def lock(self) -> Path:
        """Locked while a process trains here."""
        return self.path / "lock"

    @property
    def checkpoints(self) -> Path:
        """Training checkpoints."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Preview images."""
        return self.path / "samples"

    @property
    def result_file(self) -> Path:
        """The result, once there is one."""
        return self.path / "result.json"

    def recipe(self) -> Recipe:
        """The recipe. Raises RecipeError."""
        return read_recipe(self.recipe_file)

    def places(self) -> Places:
        """The places. Raises RecipeError."""
        try:
            return Places.model_validate_json(self.places_file.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise RecipeError(explain(error, "places file")) from None
        except OSError as error:
            raise RecipeError(f"{self.places_file} cannot be read: {error}") from None

    def write_result(self, result: Result) -> None:
        """Writes `result.json`, whole or not at all."""
        data = asdict(result) | {"adapter": str(result.adapter), "version": 1}
        for key in ("recipe", "folder", "reused"):
            del data[key]
        write_whole(self.result_file, json.dumps(data, indent=2))

    def result(self) -> Result | None:
        """The result, or None if there is none, it is damaged, or its adapter file is gone."""
        try:
            data = json.loads(self.result_file.read_text(encoding="utf-8"))
            if data.pop("version") != 1:
                return None
            data |= {"adapter": Path(data["adapter"]), "losses": tuple(data["losses"])}
            data["notes"] = tuple(data["notes"])
            result = Result(recipe=self.recipe(), folder=self.path, **data)
        except (OSError, ValueError, KeyError, TypeError, RecipeError):
            return None
        return result if result.adapter.is_file() else None


def bind(recipe: Recipe, places: Places) -> tuple[Recipe, PhotoSet]:
    """The recipe with the digests of the files it is bound to, and its photographs.

    Raises RecipeError if the recipe already names others than those given, BaseModelError and
    SubjectError for files that cannot be used. Reads headers and digests only.
    """
    identify(places.base)
    base = digest_of(places.base, places.cache)
    photos = read_subject(places.photos, recipe.subject)
    _same("base model", recipe.base.digest, base)
    _same("set of photographs", recipe.subject.digest, photos.digest)
    parts: dict[str, Any] = {"base": {"digest": base}, "subject": {"digest": photos.digest}}
    if recipe.prior is not None and (places.class_images or recipe.prior.images):
        parts["prior"] = {"images": _class_images_digest(recipe, places)}
    return recipe.changed(**parts), photos


def _class_images_digest(recipe: Recipe, places: Places) -> str:
    if places.class_images is None:
        raise RecipeError(
            "The recipe was made with a set of class images of its own (prior.images): "
            "give their folder, or set prior.images to null to have them drawn."
        )
    # As prior.read_class_images reads them; that room needs torch.
    spec = Subject(resolution=recipe.subject.resolution)
    digest = read_subject(places.class_images, spec).digest
    _same("set of class images", recipe.prior.images if recipe.prior else None, digest)
    return digest


def _same(what: str, named: str | None, given: str) -> None:
    if named is not None and named != given:
        raise RecipeError(
            f"The recipe was made with another {what}: it names {named[:12]}…, "
            f"the one given is {given[:12]}…. Give that one, or clear its digest in the recipe."
        )


def prepare(recipe: Recipe, places: Places) -> RunFolder:
    """Checks everything that can be checked without torch, and writes the run's folder.

    The folder is `<runs>/<name>-<method>-<digest>`, so equal recipes and inputs share one.
    Raises a LikenessError; then nothing has been written.
    """
    require_packages(recipe)
    bound, _ = bind(recipe, places)
    folder = RunFolder(places.runs.resolve() / bound.run_name())
    if bound.continues is not None:
        continued(bound, places)
    _check_space(bound, places)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        write_whole(folder.recipe_file, bound.to_json())
        write_whole(folder.places_file, _absolute(places).model_dump_json(indent=2))
    except OSError as error:
        raise RunFailed(f"The run's folder {folder.path} cannot be written: {error}") from None
    return folder


def _absolute(places: Places) -> Places:
    paths = {
        name: tuple(p.absolute() for p in value) if isinstance(value, tuple) else value.absolute()
        for name, value in places
        if isinstance(value, (Path, tuple))
    }
    return places.model_copy(update=paths)


def continued(recipe: Recipe, places: Places) -> RunFolder:
    """The earlier run that `recipe.continues` names.

    Raises RecipeError if it is not among the runs, has as many steps already, or trained other
    weights or with another optimizer, so that its state does not fit.
    """
    digest = recipe.continues or ""
    for path in sorted(places.runs.glob(f"*-{digest[:8]}")):
        folder = RunFolder(path)
        if folder.recipe().digest() == digest:
            steps = folder.recipe().schedule.steps
            if steps >= recipe.schedule.steps:
                raise RecipeError(
                    f"schedule.steps is {recipe.schedule.steps}, but the run it continues has "
                    f"{steps} already: give the total, old and new steps together."
                )
            _check_continues(recipe, folder.recipe())
            return folder
    raise RecipeError(f"The run {digest[:8]} to continue is not in {places.runs}.")


# Bytes a weight of an optimizer's states in a checkpoint.
_STATES = {"adamw": 8.0, "adamw8bit": 2.1, "prodigy": 16.0}


def _check_continues(recipe: Recipe, earlier: Recipe) -> None:
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
            f"A run that continues another keeps its {', '.join(changed)}: set them as they were, "
            "or clear continues to train from the start."
        )


def _check_space(recipe: Recipe, places: Places) -> None:
    """Raises OutOfSpace unless the checkpoints and the adapter fit on their disks."""
    weights, adapters = _SD15_WEIGHTS * 0.01, places.loras
    if isinstance(recipe.method, DreamBooth):
        weights, adapters = _trained_weights(places.base), places.checkpoints
    average = 4 if recipe.objective.ema_decay else 0
    checkpoint = weights * (4 + average + _STATES[recipe.optimizer.name])
    needs = {
        places.runs: checkpoint * (recipe.saving.keep + 1),  # the new one before the old one goes
        adapters: weights * (4 if recipe.saving.dtype == "fp32" else 2) * 1.1,  # with the VAE
    }
    for folder, need in needs.items():
        free = shutil.disk_usage(_existing(folder)).free
        if free < need:
            raise OutOfSpace(
                f"{folder} has {free / GIGABYTE:.1f} GB free; this run needs about "
                f"{need / GIGABYTE:.1f} GB there. Free some space, or choose another folder."
            )


def _trained_weights(base: Path) -> float:
    """How many weights a full fine-tune trains, as far as the base's header says."""
    if base.suffix != ".safetensors":
        return _SD15_WEIGHTS
    shapes = read_shapes(base)
    parts = ("model.diffusion_model.", "cond_stage_model.")
    return sum(prod(shape) for name, shape in shapes.items() if name.startswith(parts))


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return folder if folder.exists() or folder.parent == folder else _existing(folder.parent)


def read_photos(recipe: Recipe, places: Places) -> PhotoSet:
    """The photographs of a bound recipe. Raises SubjectError if they changed since."""
    photos = read_subject(places.photos, recipe.subject)
    if photos.digest != recipe.subject.digest:
        raise SubjectError(
            f"The photographs in {places.photos} changed after the run was prepared."
        )
    return photos
