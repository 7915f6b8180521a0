"""From files to what a step needs: class images drawn, pictures encoded, prompts listed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from .base_model import BaseModel
from .batches import Dataset, DatasetItem, used_class_images
from .class_image_files import list_class_images, missing, remove_damaged
from .files import make_folder
from .latents import encode_images
from .masks import load_mask
from .memory import release_memory
from .photo_manifest import load_class_photos, load_subject_photos
from .places import Places
from .prior import draw_class_images, prior_folder, prior_key
from .recipe import Prior, Recipe
from .run import Run
from .subject import Photo, load_pixels, split_holdout

_POLL_SECONDS = 0.5  # between looks at what another run has drawn


def class_images_folder(recipe: Recipe, places: Places, prior: Prior) -> Path:
    """Where the class images that the base draws for a bound recipe are kept."""
    key = prior_key(
        prior,
        recipe.class_prompts(),
        recipe.base.digest or "",
        recipe.subject.resolution,
        prediction=recipe.base.prediction,
        clip_skip=recipe.text_encoder.clip_skip,
    )
    return prior_folder(places.cache, key)


def draw_missing_class_images(run: Run, base: BaseModel) -> None:
    """Draws the class images that the run shows and the cache lacks, shared out over the processes.

    Damaged ones are removed before, which is said, and so drawn again.
    Raises RunCancelled as soon as the run is asked to end.
    """
    recipe, accelerator = run.recipe, run.accelerator
    prior = recipe.prior
    run.stop.check()
    if prior is None or prior.source == "teacher" or prior.images is not None:
        return
    folder = class_images_folder(recipe, run.places, prior)
    numbers = used_class_images(recipe, prior.count, accelerator.num_processes)
    if accelerator.is_main_process and (damaged := remove_damaged(folder, numbers)):
        run.note(f"Damaged class images in {folder}, which are drawn again: {damaged}.")
    accelerator.wait_for_everyone()
    with _drawing_lock(run, folder, numbers) as from_end:
        draw_class_images(
            base,
            prior,
            recipe.class_prompts(),
            folder,
            device=accelerator.device,
            size=recipe.subject.resolution,
            numbers=numbers,
            clip_skip=recipe.text_encoder.clip_skip,
            progress=lambda done, total: run.progress("class images", done, total),
            interrupted=lambda: bool(run.stop.local_request()),
            notice=run.note,
            graphs=recipe.compute.graphs,
            rank_and_world=(accelerator.process_index, accelerator.num_processes),
            from_end=from_end,
        )
    release_memory()  # many images are drawn together: what they took is not what encoding takes
    accelerator.wait_for_everyone()


@contextmanager
def _drawing_lock(run: Run, folder: Path, numbers: Sequence[int]) -> Iterator[bool]:
    """Waits while other runs draw the same set, and shows how far they are.

    Gives whether to begin with the last image. On a GPU one run draws a set. On a CPU two do, for
    each may have a core to itself, and meet in the middle. Runs of several processes do not wait:
    those that wait for the main one would give it up. They and the others then draw side by side,
    and the first to finish an image keeps it.
    """
    if run.accelerator.num_processes > 1 or not missing(folder, numbers):
        yield False
        return
    make_folder(folder)
    ends = [FileLock(folder / ".lock"), FileLock(folder / ".lock-last")]
    if run.accelerator.device.type != "cpu":
        ends.pop()
    lock = _wait_for_lock(ends, run, folder, numbers)
    try:
        yield lock is not None and lock is not ends[0]
    finally:
        if lock is not None:
            lock.release()


def _wait_for_lock(
    locks: Sequence[FileLock], run: Run, folder: Path, numbers: Sequence[int]
) -> FileLock | None:
    """The first lock that is free; None if all images are there, or the file system has no locks.

    Raises RunCancelled as soon as the run is asked to end.
    """
    while left := missing(folder, numbers):
        try:
            lock = next(filter(_try_acquire, locks), None)
        except (OSError, NotImplementedError):
            return None
        if lock is not None:
            return lock
        run.progress("class images", len(numbers) - len(left), len(numbers))
        run.stop.check()
        time.sleep(_POLL_SECONDS)
    return None


def _try_acquire(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


@dataclass(frozen=True)
class PhotoView:
    """A photograph as it is encoded: cropped, resized, mirrored or not."""

    photo: Photo
    flip: bool

    @property
    def key(self) -> str:
        """What decides the pixels: content, crop, size and side."""
        return f"{self.photo.digest} {self.photo.box} {self.photo.size} {self.flip}"

    def pixels(self) -> np.ndarray:
        """RGB pixels (H, W, 3), uint8."""
        return load_pixels(self.photo, self.flip)


def _split(run: Run) -> tuple[list[Photo], list[Photo]]:
    """The photographs to train on, and those held out."""
    photos = load_subject_photos(run.folder.photos_file, run.recipe, run.places.photos)
    return split_holdout(photos, run.recipe.subject.holdout, run.recipe.seed)


def _flips(recipe: Recipe) -> tuple[bool, ...]:
    """Whether a photograph is mirrored, for each of its views."""
    return (False, True) if recipe.subject.flip else (False,)


def _views(
    train: Sequence[Photo], held_out: Sequence[Photo], sides: Sequence[bool]
) -> list[PhotoView]:
    views = [PhotoView(photo, side) for photo in train for side in sides]
    return views + [PhotoView(photo, False) for photo in held_out]


def build_dataset(run: Run, base: BaseModel) -> Dataset:
    """Encodes photographs and class images, and numbers the distinct prompts.

    Raises RunCancelled as soon as the run is asked to end.
    """
    recipe = run.recipe
    train, held_out = _split(run)
    count, classes = _class_photos(run)
    sides = _flips(recipe)
    views = [
        *_views(train, held_out, sides),
        *(PhotoView(photo, False) for photo in classes.values()),
    ]

    def progress(done: int, total: int) -> None:
        run.progress("encode", done, total)
        run.stop.check()

    latents = iter(
        encode_images(
            base.vae,
            views,
            cache=run.places.cache,
            vae_digest=recipe.base.digest or "",
            device=run.accelerator.device,
            progress=progress,
            notice=run.note,
            rank_and_world=(run.accelerator.process_index, run.accelerator.num_processes),
            wait=run.accelerator.wait_for_everyone,
        )
    )
    prompts: dict[str, int] = {}

    def shown(
        prompt: str, photo: Photo | None = None, sides: Sequence[bool] = (False,)
    ) -> DatasetItem:
        number = prompts.setdefault(prompt, len(prompts))
        weights = [loss_weights(recipe, photo, side) for side in sides if photo is not None]
        masks = tuple(mask for mask in weights if mask is not None)
        return DatasetItem(tuple(next(latents) for _ in sides), number, masks)

    shown_photos = tuple(
        [shown(recipe.instance_prompt(photo.caption), photo, sides) for photo in train]
    )
    shown_held_out = tuple(
        [shown(recipe.instance_prompt(photo.caption), photo) for photo in held_out]
    )
    class_prompts = recipe.class_prompts()
    shown_classes = tuple(
        [
            shown(
                class_prompts[index % len(class_prompts)],
                sides=(False,) if index in classes else (),
            )
            for index in range(count)
        ]
    )
    if recipe.prior and recipe.prior.source == "teacher":
        numbers = [prompts.setdefault(prompt, len(prompts)) for prompt in class_prompts]
        shown_classes = tuple(
            DatasetItem(photo.views, number) for number in numbers for photo in shown_photos
        )
    dropping = recipe.objective.caption_dropout > 0
    empty = prompts.setdefault("", len(prompts)) if dropping else None
    return Dataset(shown_photos, shown_classes, shown_held_out, tuple(prompts), empty)


def loss_weights(recipe: Recipe, photo: Photo, flip: bool = False) -> Tensor | None:
    """Weights (h, w) of a photograph's loss, 1 where the subject is; None without masks."""
    if recipe.subject.mask == "none":
        return None
    mask = load_mask(photo, flip)
    if mask is None:  # of a run with masks, whose batches are then all of one kind
        return torch.ones(photo.size[1] // 8, photo.size[0] // 8)
    least = recipe.subject.unmasked_weight
    return least + (1 - least) * torch.from_numpy(mask)


def photo_prompts(run: Run) -> list[str]:
    """The prompt of each photograph of a run.

    Raises SubjectError if the photographs changed since the recipe was bound.
    """
    photos = load_subject_photos(run.folder.photos_file, run.recipe, run.places.photos).photos
    return [run.recipe.instance_prompt(photo.caption) for photo in photos]


def all_prompts(recipe: Recipe, of_photos: Sequence[str]) -> list[str]:
    """All prompts of a run, each once, also those of class images and previews."""
    prompts = [*of_photos]
    if recipe.prior is not None:
        drawn = recipe.prior.source == "images" and recipe.prior.images is None
        prompts += [*recipe.class_prompts(), recipe.prior.negative if drawn else ""]
    if recipe.previews.every:
        prompts += [*map(recipe.fill, recipe.previews.prompts), recipe.previews.negative]
    return list(dict.fromkeys(filter(None, prompts)))


def _class_photos(run: Run) -> tuple[int, dict[int, Photo]]:
    """How many class images there are, and those that the run shows, by their numbers."""
    recipe, places, world_size = run.recipe, run.places, run.accelerator.num_processes
    prior, size = recipe.prior, recipe.subject.resolution
    if prior is None or prior.source == "teacher":
        return 0, {}
    if places.class_images is not None:
        own = load_class_photos(run.folder.photos_file, recipe, places.class_images).photos
        return len(own), {
            index: own[index] for index in used_class_images(recipe, len(own), world_size)
        }
    numbers = used_class_images(recipe, prior.count, world_size)
    photos = list_class_images(class_images_folder(recipe, places, prior), numbers, size)
    return prior.count, dict(zip(numbers, photos, strict=True))
