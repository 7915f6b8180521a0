"""What the subject panel in the browser shows: each photograph whole and as it is trained."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..trainers.errors import SubjectError
from ..trainers.files import write_whole
from ..trainers.photo_checks import BLURRED, fingerprint, sharpness, twin_of
from ..trainers.pictures import open_picture, to_srgb
from ..trainers.recipe import Subject
from ..trainers.subject import Photo, load_pixels, read_subject
from .encode import webp

WHOLE_SIDE = 640
MOST = 300  # photographs that are shown; any number is trained
FOLDER = "likeness"  # below ComfyUI's folder of temporary files


def photo_view(folder: Path, spec: Subject, temp: Path) -> dict[str, Any]:
    """JSON of the photographs that a subject node would give, with their marks.

    Their pictures are written below `temp`. Raises SubjectError as `read_subject` does, and for
    more than MOST files.
    """
    files = folder.iterdir() if folder.is_dir() else ()
    count = sum(path.suffix.lower() != ".txt" for path in files)
    if count > MOST:
        raise SubjectError(
            f"The folder has {count:,} files, and at most {MOST} are shown here. All are read when "
            "the workflow is queued."
        )
    photos = read_subject(folder, spec)
    looks = [_looked_at(photo, temp) for photo in photos.photos]
    twins = twin_of([print_ for _, print_ in looks])
    names = [photo.path.name for photo in photos.photos]
    return {
        "photos": [
            _card(photo, sharp < BLURRED, None if twin is None else names[twin])
            for photo, (sharp, _), twin in zip(photos.photos, looks, twins, strict=True)
        ],
        "refused": [{"name": one.name, "reason": one.reason} for one in photos.refused],
        "notes": list(photos.notes),
    }


def _card(photo: Photo, blurred: bool, twin: str | None) -> dict[str, Any]:
    return {
        "name": photo.path.name,
        "width": photo.width,
        "height": photo.height,
        "box": photo.box,
        "size": photo.size,
        "caption": photo.caption,
        "face": photo.face,
        "whole": f"{_stem(photo)}-whole.webp",
        "crop": f"{_stem(photo)}-crop.webp",
        "blurred": blurred,
        "twin": twin,
    }


def _stem(photo: Photo) -> str:
    """Names the pictures of a photograph by all that decides them."""
    content = repr((photo.digest, photo.box, photo.size))
    return hashlib.sha256(content.encode()).hexdigest()[:24]


@lru_cache(maxsize=2000)
def _looked_at(photo: Photo, temp: Path) -> tuple[float, np.ndarray]:
    """Sharpness and fingerprint as it is trained; writes its two pictures."""
    pixels = load_pixels(photo)
    whole = to_srgb(open_picture(photo.path))
    whole.thumbnail((WHOLE_SIDE, WHOLE_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    for name, image in (("whole", whole), ("crop", Image.fromarray(pixels))):
        write_whole(temp / FOLDER / f"{_stem(photo)}-{name}.webp", webp(image), lasting=False)
    return sharpness(pixels), fingerprint(pixels)
