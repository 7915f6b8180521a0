"""The pictures that were checked before a run, so that it need not decode them all again.

`photos.json` in the run's folder lists each with its digest and its crop, and beside them what is
not used or was noted; the pixels are compared with the digest when they are read.
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
from .subject import Photo, PhotoSet, RejectedFile, photo_set_digest, read_subject


def write_manifest(file: Path, photos: PhotoSet, class_images: PhotoSet | None) -> None:
    """Writes the list."""
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
    """The photographs of a bound recipe, from the list in `file` or else from their folder.

    Raises SubjectError if they changed since the recipe was bound.
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
    """The user's own class images, read as photographs. `on_read` and errors as `read_subject`."""
    prompts = "class images have the prompts of prior.prompt"
    return read_subject(folder, class_spec(recipe), prompts, on_read)


def class_spec(recipe: Recipe) -> Subject:
    """How the user's own class images are read: as photographs, but square."""
    return Subject(resolution=recipe.subject.resolution, enlarge=recipe.subject.enlarge)


def _check_unchanged(photos: PhotoSet, folder: Path, digest: str | None) -> PhotoSet:
    if photos.digest != digest:
        raise SubjectError(f"The pictures in {folder} changed after the run was prepared.")
    return photos


def _read_manifest(file: Path, name: str, digest: str | None) -> PhotoSet | None:
    """The set in the list; None if there is no list, it is damaged, or its files are gone."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        photos = tuple(_photo(entry) for entry in table[name])
        told = table.get("refused", {}).get(name, ())  # 0.1.0 wrote none of it
        refused = tuple(RejectedFile(str(file), str(reason)) for file, reason in told)
        notes = tuple(str(note) for note in table.get("notes", {}).get(name, ()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    whole = photo_set_digest(photos) == digest and all(photo.path.is_file() for photo in photos)
    return PhotoSet(photos, refused, notes, digest or "") if whole else None


def _photo(entry: dict[str, Any]) -> Photo:
    left, top, right, bottom = map(int, entry.pop("box"))
    width, height = map(int, entry.pop("size"))
    path, mask = Path(entry.pop("path")), entry.pop("mask", None)
    entry["mask"] = Path(mask) if mask else None
    return Photo(path, box=(left, top, right, bottom), size=(width, height), **entry)
