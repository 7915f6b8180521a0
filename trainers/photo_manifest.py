"""The images that were checked before a run, so that it need not decode them all again.

`photos.json` in the run's folder lists each with its digest and crop, and also the rejected files
and notes. Files are verified against their digests when they are read.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .digests import OnRead
from .errors import SubjectError
from .files import write_atomic
from .recipe import Recipe, Subject
from .subject import Photo, PhotoSet, RejectedFile, photo_set_digest, read_photos, read_subject


def write_manifest(file: Path, photos: PhotoSet, class_images: PhotoSet | None) -> None:
    """Writes the manifest."""
    sets = {"photos": photos, "class_images": class_images}
    table: dict[str, Any] = {"refused": {}, "notes": {}}
    for name, found in sets.items():
        if found is not None:
            table[name] = [_entry(photo) for photo in found.photos]
            table["refused"][name] = [[file.name, file.reason] for file in found.refused]
            table["notes"][name] = found.notes
    write_atomic(file, json.dumps({"version": 1, **table}, indent=1))


def _entry(photo: Photo) -> dict[str, Any]:
    mask = str(photo.mask.absolute()) if photo.mask else None
    return asdict(photo) | {"path": str(photo.path.absolute()), "mask": mask}


def load_subject_photos(file: Path, recipe: Recipe, folder: Path) -> PhotoSet:
    """The photographs of a bound recipe, from the manifest `file`, else from their folder.

    Raises SubjectError if they have changed since the recipe was bound.
    """
    listed = _read_manifest(file, "photos", recipe.subject.digest)
    return listed or _check_unchanged(
        read_subject(folder, recipe.subject), folder, recipe.subject.digest
    )


def load_class_photos(file: Path, recipe: Recipe, folder: Path) -> PhotoSet:
    """As `load_subject_photos`, for the user's own class images."""
    digest = recipe.prior.images if recipe.prior else None
    listed = _read_manifest(file, "class_images", digest)
    return listed or _check_unchanged(read_class_images(folder, recipe), folder, digest)


def read_class_images(folder: Path, recipe: Recipe, on_read: OnRead | None = None) -> PhotoSet:
    """The user's own class images, read as photographs. `on_read` and errors as `read_photos`."""
    prompts = "class images use the prompts of prior.prompt"
    return read_photos(folder, class_spec(recipe), prompts, on_read)


def class_spec(recipe: Recipe) -> Subject:
    """How the user's own class images are read: as photographs, but square."""
    return Subject(resolution=recipe.subject.resolution, enlarge=recipe.subject.enlarge)


def _check_unchanged(photos: PhotoSet, folder: Path, digest: str | None) -> PhotoSet:
    if photos.digest != digest:
        raise SubjectError(
            f"The images in {folder} have changed since the run was prepared: start it again to "
            "train on those there now, or restore them."
        )
    return photos


def _read_manifest(file: Path, name: str, digest: str | None) -> PhotoSet | None:
    """A set from the manifest; None if that is missing or damaged, or files are missing."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        photos = tuple(_photo(entry) for entry in table[name])
        rejected = table["refused"][name]
        refused = tuple(RejectedFile(str(file), str(reason)) for file, reason in rejected)
        notes = tuple(str(note) for note in table["notes"][name])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    complete = photo_set_digest(photos) == digest and all(photo.path.is_file() for photo in photos)
    return PhotoSet(photos, refused, notes, digest or "") if complete else None


def _photo(entry: dict[str, Any]) -> Photo:
    left, top, right, bottom = map(int, entry.pop("box"))
    width, height = map(int, entry.pop("size"))
    path, mask = Path(entry.pop("path")), entry.pop("mask", None)
    entry["mask"] = Path(mask) if mask else None
    return Photo(path, box=(left, top, right, bottom), size=(width, height), **entry)
