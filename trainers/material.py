"""From files to what a step needs: class images drawn, pictures encoded, prompts listed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from .base_model import BaseModel
from .events import Emit
from .latents import encode_images
from .places import Places
from .prior import (
    draw_class_images,
    drawn_class_images,
    prior_folder,
    prior_key,
    read_class_images,
)
from .recipe import Prior, Recipe
from .samples import Material, Shown
from .subject import Photo, PhotoSet, load_pixels, split_holdout

Progress = Callable[[int, int], None]


def drawn_folder(recipe: Recipe, places: Places, prior: Prior) -> Path:
    """Where the class images that the base draws for a bound recipe are kept."""
    key = prior_key(
        prior,
        recipe.fill(prior.prompt),
        recipe.base.digest or "",
        recipe.subject.resolution,
        prediction=recipe.base.prediction,
        clip_skip=recipe.text_encoder.clip_skip,
    )
    return prior_folder(places.cache, key)


def draw_missing_class_images(
    base: BaseModel, recipe: Recipe, places: Places, accelerator: Accelerator, progress: Progress
) -> None:
    """Draws the class images that the cache lacks, shared out over the processes."""
    prior = recipe.prior
    if prior is None or prior.images is not None:
        return
    draw_class_images(
        base,
        prior,
        recipe.fill(prior.prompt),
        drawn_folder(recipe, places, prior),
        device=accelerator.device,
        size=recipe.subject.resolution,
        clip_skip=recipe.text_encoder.clip_skip,
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


def _class_photos(recipe: Recipe, places: Places) -> Sequence[Photo]:
    prior, size = recipe.prior, recipe.subject.resolution
    if prior is None:
        return []
    if places.class_images is not None:
        return read_class_images(places.class_images, size).photos
    return drawn_class_images(drawn_folder(recipe, places, prior), prior.count, size)
