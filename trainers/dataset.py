"""From files to training data: draws class images, encodes images and lists prompts."""

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
from .class_image_sets import class_images_folder
from .files import make_folder
from .latents import Latents, StoredLatents, encode_images
from .masks import load_mask
from .memory import release_memory
from .photo_manifest import load_class_photos, load_subject_photos
from .prior import draw_class_images
from .recipe import Recipe
from .run import Run
from .subject import Photo, load_pixels, split_holdout
from .tags import tag_orders

_POLL_SECONDS = 0.5  # between checks of what another run has drawn


def draw_missing_class_images(run: Run, base: BaseModel) -> None:
    """Draws the class images that the run uses and the cache lacks, split among the processes.

    Damaged ones are first removed, with a note, and so drawn again. Raises RunCancelled as soon as
    the run is asked to stop.
    """
    recipe, accelerator = run.recipe, run.accelerator
    prior = recipe.prior
    run.stop.check()
    if prior is None or prior.source == "teacher" or prior.images is not None:
        return
    folder = class_images_folder(recipe, run.places, prior)
    numbers = used_class_images(recipe, prior.count, accelerator.num_processes)
    if accelerator.is_main_process and (damaged := remove_damaged(folder, numbers)):
        run.note(f"Damaged class images in {folder}, now generated again: {damaged}.")
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
            max_tokens=recipe.text_encoder.max_tokens,
            progress=lambda done, total: run.progress("class images", done, total),
            interrupted=lambda: bool(run.stop.local_request()),
            notice=run.note,
            graphs=recipe.compute.graphs,
            rank_and_world=(accelerator.process_index, accelerator.num_processes),
            from_end=from_end,
        )
    release_memory()  # images are drawn in large batches, whose memory encoding cannot reuse
    accelerator.wait_for_everyone()


@contextmanager
def _drawing_lock(run: Run, folder: Path, numbers: Sequence[int]) -> Iterator[bool]:
    """Waits while other runs draw the same set, and shows their progress.

    Yields whether to begin with the last image. On a GPU one run draws a set. On a CPU two do, as
    each may have its own core, and meet in the middle. Runs of several processes do not wait:
    those waiting for the main process would time out. They draw alongside the others, and the
    first to finish an image keeps it.
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
    """The first free lock; None if all images exist or the file system has no locks.

    Raises RunCancelled as soon as the run is asked to stop.
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
    """A photograph as it is encoded: cropped, resized and, with `flip`, mirrored."""

    photo: Photo
    flip: bool

    @property
    def key(self) -> str:
        """Everything that decides the pixels: content, crop, size and mirroring."""
        return f"{self.photo.digest} {self.photo.box} {self.photo.size} {self.flip}"

    def pixels(self) -> np.ndarray:
        """RGB pixels (H, W, 3), uint8."""
        return load_pixels(self.photo, self.flip)


def _split(run: Run) -> tuple[list[Photo], list[Photo]]:
    """Photographs to train on, and those held out."""
    photos = load_subject_photos(run.folder.photos_file, run.recipe, run.places.photos)
    return split_holdout(photos, run.recipe.subject.holdout, run.recipe.seed)


def _flips(recipe: Recipe) -> tuple[bool, ...]:
    """Whether a photograph is mirrored, for each of its views."""
    return (False, True) if recipe.subject.flip else (False,)


def _views(
    train: Sequence[Photo], held_out: Sequence[Photo], flips: Sequence[bool]
) -> list[PhotoView]:
    views = [PhotoView(photo, flip) for photo in train for flip in flips]
    return views + [PhotoView(photo, False) for photo in held_out]


def _encode(
    run: Run, base: BaseModel, views: Sequence[PhotoView]
) -> Iterator[Latents | StoredLatents]:
    """The latents of images. Raises RunCancelled as soon as the run is asked to stop."""

    def progress(done: int, total: int) -> None:
        run.progress("encode", done, total)
        run.stop.check()

    encoded = encode_images(
        base.vae,
        views,
        cache=run.places.cache,
        vae_digest=run.recipe.base.digest or "",
        device=run.accelerator.device,
        progress=progress,
        notice=run.note,
        rank_and_world=(run.accelerator.process_index, run.accelerator.num_processes),
        wait=run.accelerator.wait_for_everyone,
    )
    return iter(encoded)


def build_dataset(run: Run, base: BaseModel) -> Dataset:
    """Encodes photographs and class images, and indexes the distinct prompts.

    Raises RunCancelled as soon as the run is asked to stop.
    """
    recipe = run.recipe
    train, held_out = _split(run)
    run.photos = len(train)
    count, classes = _class_photos(run)
    flips = _flips(recipe)
    views = [
        *_views(train, held_out, flips),
        *(PhotoView(photo, False) for photo in classes.values()),
    ]

    latents = _encode(run, base, views)
    prompts: dict[str, int] = {}

    def item(
        texts: Sequence[str], photo: Photo | None = None, flips: Sequence[bool] = (False,)
    ) -> DatasetItem:
        numbers = tuple([prompts.setdefault(text, len(prompts)) for text in texts])
        weights = [loss_weights(recipe, photo, flip) for flip in flips if photo is not None]
        masks = tuple(mask for mask in weights if mask is not None)
        return DatasetItem(tuple(next(latents) for _ in flips), numbers, masks)

    photo_items = tuple(
        [
            item(tag_orders(recipe, photo.caption, number, len(train)), photo, flips)
            for number, photo in enumerate(train)
        ]
    )
    held_out_items = tuple(
        [item([recipe.instance_prompt(photo.caption)], photo) for photo in held_out]
    )
    class_prompts = recipe.class_prompts()
    class_items = tuple(
        [
            item(
                [class_prompts[index % len(class_prompts)]],
                flips=(False,) if index in classes else (),
            )
            for index in range(count)
        ]
    )
    if recipe.prior and recipe.prior.source == "teacher":
        numbers = [prompts.setdefault(prompt, len(prompts)) for prompt in class_prompts]
        class_items = tuple(
            DatasetItem(photo.views, (number,)) for number in numbers for photo in photo_items
        )
    dropping = recipe.objective.caption_dropout > 0
    empty = prompts.setdefault("", len(prompts)) if dropping else None
    return Dataset(photo_items, class_items, held_out_items, tuple(prompts), empty)


def loss_weights(recipe: Recipe, photo: Photo, flip: bool = False) -> Tensor | None:
    """Loss weights (h, w) of a photograph, 1 on the subject; None without masks."""
    if recipe.subject.mask == "none":
        return None
    mask = load_mask(photo, flip)
    if mask is None:  # ones, so that all batches of a run with masks have one
        return torch.ones(photo.size[1] // 8, photo.size[0] // 8)
    least = recipe.subject.unmasked_weight
    return least + (1 - least) * torch.from_numpy(mask)


def photo_prompts(run: Run) -> list[str]:
    """Prompts of a run's photographs.

    Raises SubjectError if the photographs changed since the recipe was bound.
    """
    photos = load_subject_photos(run.folder.photos_file, run.recipe, run.places.photos).photos
    return [run.recipe.instance_prompt(photo.caption) for photo in photos]


def all_prompts(recipe: Recipe, of_photos: Sequence[str]) -> list[str]:
    """Distinct prompts of a run, including those of class images and previews."""
    prompts = [*of_photos]
    if recipe.prior is not None:
        drawn = recipe.prior.source == "images" and recipe.prior.images is None
        prompts += [*recipe.class_prompts(), recipe.prior.negative if drawn else ""]
    if recipe.previews.every:
        prompts += [*map(recipe.fill, recipe.previews.prompts), recipe.previews.negative]
    return list(dict.fromkeys(filter(None, prompts)))


def _class_photos(run: Run) -> tuple[int, dict[int, Photo]]:
    """Number of class images, and those that the run uses, by number."""
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
