"""From files to what a step needs: class images drawn, pictures encoded, prompts listed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from .base_model import BaseModel
from .events import Emit
from .latents import encode_images
from .prior import draw_class_images, missing, prior_folder, prior_key
from .recipe import Places, Prior, Recipe
from .samples import Material, Shown
from .subject import Photo, PhotoSet, load_pixels, read_subject, split_holdout

Progress = Callable[[int, int], None]


def class_images_folder(recipe: Recipe, places: Places, prior: Prior) -> Path:
    """Where a run's class images are: the user's folder, or the shared cache."""
    if places.class_images is not None:
        return places.class_images
    prompt = recipe.fill(prior.prompt)
    key = prior_key(prior, prompt, recipe.base.digest or "", recipe.subject.resolution)
    return prior_folder(places.cache, key)


def draw_missing_class_images(
    base: BaseModel, recipe: Recipe, places: Places, accelerator: Accelerator, progress: Progress
) -> None:
    """Draws the class images that the cache lacks, shared out over the processes."""
    prior = recipe.prior
    if prior is None or prior.images is not None:
        return
    folder = class_images_folder(recipe, places, prior)
    if missing(folder, prior.count):
        draw_class_images(
            base,
            prior,
            recipe.fill(prior.prompt),
            folder,
            device=accelerator.device,
            size=recipe.subject.resolution,
            progress=progress,
            ranks=(accelerator.process_index, accelerator.num_processes),
        )
    accelerator.wait_for_everyone()


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


def gather(
    base: BaseModel,
    recipe: Recipe,
    places: Places,
    photos: PhotoSet,
    *,
    device: torch.device,
    progress: Progress,
    emit: Emit,
) -> Material:
    """Encodes photographs and class images, and numbers the distinct prompts."""
    train, held_out = split_holdout(photos, recipe.subject.holdout, recipe.seed)
    classes = _class_photos(recipe, places)
    sides = (False, True) if recipe.subject.flip else (False,)
    views = [PhotoView(photo, side) for photo in train for side in sides]
    views += [PhotoView(photo, False) for photo in [*held_out, *classes]]
    latents = iter(
        encode_images(
            base.vae,
            views,
            cache=places.cache,
            vae_digest=recipe.base.digest or "",
            device=device,
            progress=progress,
            notice=lambda text: emit("notice", text=text),
        )
    )
    prompts: dict[str, int] = {}

    def shown(prompt: str, count: int = 1) -> Shown:
        number = prompts.setdefault(prompt, len(prompts))
        return Shown(tuple(next(latents) for _ in range(count)), number)

    return Material(
        photos=tuple([shown(_prompt(recipe, photo), len(sides)) for photo in train]),
        held_out=tuple([shown(_prompt(recipe, photo)) for photo in held_out]),
        classes=tuple([shown(recipe.class_prompt() or "") for _ in classes]),
        prompts=tuple(prompts),
    )


def _prompt(recipe: Recipe, photo: Photo) -> str:
    return recipe.fill(photo.caption) if photo.caption else recipe.instance_prompt()


def _class_photos(recipe: Recipe, places: Places) -> list[Photo]:
    if recipe.prior is None:
        return []
    folder = class_images_folder(recipe, places, recipe.prior)
    spec = recipe.subject.model_copy(
        update={"captions": False, "holdout": 0, "buckets": False, "crop": "centre"}
    )
    photos = read_subject(folder, spec).photos
    return list(photos if recipe.prior.images else photos[: recipe.prior.count])
