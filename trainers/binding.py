"""Binds a recipe to the files that a run reads. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .base_file import check_noise_schedule, identify
from .digests import OnRead, content_digest
from .errors import RecipeError
from .photo_manifest import read_class_images
from .places import Places
from .recipe import LoRA, Recipe
from .recipe_parts import name_of_folder
from .subject import PhotoSet, read_subject


@dataclass(frozen=True)
class BoundRecipe:
    """A recipe with the digests of its files, and the images they contain."""

    recipe: Recipe
    photos: PhotoSet
    class_images: PhotoSet | None = None  # the user's own


def named(recipe: Recipe, places: Places) -> Recipe:
    """The recipe; if it has no name, with that of the photographs' folder."""
    return recipe if recipe.name else recipe.changed(name=name_of_folder(places.photos))


def bind(recipe: Recipe, places: Places, on_read: OnRead | None = None) -> BoundRecipe:
    """Binds a recipe to the files in `places`, and names it.

    Raises RecipeError if the recipe already names other files, BaseModelError and SubjectError
    for files that cannot be used. Hashes the base and reads its header, and reads each image
    once; `on_read` is called with each file while it is read, and may raise to cancel.
    """
    check_noise_schedule(identify(places.base))
    base = content_digest(places.base, places.cache, on_read)
    photos = read_subject(places.photos, recipe.subject, on_read=on_read)
    _check_digest("base model", recipe.base.digest, base)
    _check_digest("set of photographs", recipe.subject.digest, photos.digest)
    parts: dict[str, Any] = {"base": {"digest": base}, "subject": {"digest": photos.digest}}
    class_images = None
    prior = recipe.prior
    if prior and prior.source == "images" and (places.class_images or prior.images):
        class_images = _own_class_images(recipe, places, on_read)
        parts["prior"] = {"images": class_images.digest}
    if places.start or recipe.start:
        parts["method"] = {"start": _start_digest(recipe, places, on_read)}
    return BoundRecipe(named(recipe, places).changed(**parts), photos, class_images)


def _own_class_images(recipe: Recipe, places: Places, on_read: OnRead | None) -> PhotoSet:
    if places.class_images is None:
        raise RecipeError(
            "The recipe was made with your own class images (prior.images). Give their folder, or "
            "set prior.images to null to have class images generated."
        )
    images = read_class_images(places.class_images, recipe, on_read)
    named = recipe.prior.images if recipe.prior else None
    _check_digest("set of class images", named, images.digest)
    return images


def _start_digest(recipe: Recipe, places: Places, on_read: OnRead | None) -> str:
    if not isinstance(recipe.method, LoRA):
        raise RecipeError(
            "Only a LoRA can start from a LoRA file (method.start), and method.kind is "
            f"{recipe.method.kind!r}: omit --start-from (in ComfyUI: set start_from of Train "
            "Options to none)."
        )
    if places.start is None:
        raise RecipeError(
            "The recipe starts from a LoRA file (method.start). Give it with --start-from (in "
            "ComfyUI: start_from of Train Options), or set method.start to null."
        )
    digest = content_digest(places.start, places.cache, on_read)
    _check_digest("LoRA file to start from", recipe.start, digest)
    return digest


def _check_digest(what: str, named: str | None, given: str) -> None:
    if named is not None and named != given:
        raise RecipeError(
            f"The recipe was made with another {what}: it names {named[:12]}…, but {given[:12]}… "
            "was given. Use the original, or clear its digest in the recipe."
        )
