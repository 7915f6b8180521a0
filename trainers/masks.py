"""Where a photograph shows its subject: its own transparency, or a file beside it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops

from .errors import SubjectError
from .image_io import open_verified, to_srgb

if TYPE_CHECKING:
    from .subject import Photo

MASK_SUFFIX = "-masklabel.png"  # as OneTrainer names them
_PIXELS_PER_LATENT = 8  # pixels a side of one latent
_ASPECT_TOLERANCE = 0.02  # how much the aspects of a picture and of its mask may differ


def is_mask(path: Path) -> bool:
    """Whether a file is meant as another one's mask, by its name: also one that is not read, of
    another kind or a copy with a number.
    """
    return MASK_SUFFIX.removesuffix(".png") in path.stem.lower()


def attach_mask(photo: Photo, kind: str, image: Image.Image) -> tuple[Photo, list[str]]:
    """The photograph with its mask of a `kind` (Subject.mask), and notes.

    `image` is the upright picture. Raises SubjectError for a mask that cannot be used.
    """
    name = photo.path.name
    clear = image.has_transparency_data and bool((np.asarray(_alpha(image)) < 255).any())
    if kind == "none":
        white = f"{name}: what is transparent is trained as white; see the mask 'alpha'."
        return photo, [white] if clear else []
    if kind == "alpha":
        if not clear:
            return photo, [f"{name}: nothing is transparent; all of it counts."]
        photo = replace(photo, mask=photo.path, mask_digest=photo.digest)
        return _check_mask(photo, _alpha(image)), []
    file = photo.path.with_name(photo.path.stem + MASK_SUFFIX)
    if not file.is_file():
        return photo, [f"{name}: there is no {file.name}; all of it counts."]
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        photo = replace(photo, mask=file, mask_digest=digest)
        return _check_mask(photo, _load_grey(photo)), []
    except OSError as error:
        raise SubjectError(f"its mask {file.name} cannot be read: {error.strerror}") from None


def load_mask(photo: Photo, flip: bool = False) -> np.ndarray | None:
    """How much of each latent is subject, (h, w) in [0, 1], fp32, mirrored if `flip`.

    None without a mask. Raises SubjectError when the file is gone, or not the one that was
    checked.
    """
    mask = open_mask(photo)
    if mask is None:
        return None
    values = _crop_to_latents(photo, mask)
    return np.ascontiguousarray(values[:, ::-1] if flip else values)


def open_mask(photo: Photo) -> Image.Image | None:
    """The mask of the whole picture, grey, of any size; as `load_mask`."""
    if photo.mask is None:
        return None
    if photo.mask == photo.path:
        return _alpha(open_verified(photo.mask, photo.mask_digest))
    return _load_grey(photo)


def _alpha(image: Image.Image) -> Image.Image:
    return image.convert("RGBA").getchannel("A")


def _load_grey(photo: Photo) -> Image.Image:
    """What is transparent is not the subject, as what is black."""
    assert photo.mask is not None
    image = open_verified(photo.mask, photo.mask_digest)
    grey = to_srgb(image).convert("L")
    return ImageChops.multiply(grey, _alpha(image)) if image.has_transparency_data else grey


def _crop_to_latents(photo: Photo, mask: Image.Image) -> np.ndarray:
    """The mean of the mask over each latent of the crop."""
    across, down = mask.width / photo.width, mask.height / photo.height
    left, top, right, bottom = photo.box
    box = (left * across, top * down, right * across, bottom * down)
    size = photo.size[0] // _PIXELS_PER_LATENT, photo.size[1] // _PIXELS_PER_LATENT
    exact = mask.convert("F")  # in 8 bits each mean would be rounded
    return np.asarray(exact.resize(size, Image.Resampling.BOX, box=box)) / 255


def _check_mask(photo: Photo, mask: Image.Image) -> Photo:
    aspects = mask.width / mask.height, photo.width / photo.height
    if abs(aspects[0] / aspects[1] - 1) > _ASPECT_TOLERANCE:
        assert photo.mask is not None
        raise SubjectError(
            f"its mask {photo.mask.name} has {mask.width}x{mask.height} pixels, another shape than "
            f"the picture's {photo.width}x{photo.height}; make it of the picture, turned upright"
        )
    if not _crop_to_latents(photo, mask).any():
        raise SubjectError("its mask is empty within the crop: white is where the subject is")
    return photo
