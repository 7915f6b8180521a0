"""Subject masks of photographs: their transparency, or a mask file beside them."""

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

MASK_SUFFIX = "-masklabel.png"  # OneTrainer's naming
_PIXELS_PER_LATENT = 8  # pixels a side of one latent
_ASPECT_TOLERANCE = 0.02  # relative difference allowed between image and mask


def is_mask(path: Path) -> bool:
    """Whether a file's name marks it as a mask, including masks that are not read: of another
    format, or numbered copies.
    """
    return MASK_SUFFIX.removesuffix(".png") in path.stem.lower()


def attach_mask(photo: Photo, kind: str, image: Image.Image) -> tuple[Photo, list[str]]:
    """The photograph with its mask of a `kind` (Subject.mask), and notes.

    `image` is the upright image. Raises SubjectError for an unusable mask.
    """
    name = photo.path.name
    clear = image.has_transparency_data and bool((np.asarray(_alpha(image)) < 255).any())
    if kind == "none":
        note = f"{name}: transparent areas are trained as white; set mask to 'alpha' to mask them."
        return photo, [note] if clear else []
    if kind == "alpha":
        if not clear:
            return photo, [f"{name}: nothing is transparent, so no mask is used."]
        photo = replace(photo, mask=photo.path, mask_digest=photo.digest)
        return _check_mask(photo, _alpha(image)), []
    file = photo.path.with_name(photo.path.stem + MASK_SUFFIX)
    if not file.is_file():
        return photo, [f"{name}: there is no {file.name}, so no mask is used."]
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        photo = replace(photo, mask=file, mask_digest=digest)
        return _check_mask(photo, _load_grey(photo)), []
    except OSError as error:
        raise SubjectError(f"its mask {file.name} cannot be read: {error.strerror}") from None


def load_mask(photo: Photo, flip: bool = False) -> np.ndarray | None:
    """How much of each latent is subject, (h, w) in [0, 1], fp32, mirrored if `flip`.

    None without a mask. Raises SubjectError if the file is missing or has changed since it was
    checked.
    """
    mask = open_mask(photo)
    if mask is None:
        return None
    values = _crop_to_latents(photo, mask)
    return np.ascontiguousarray(values[:, ::-1] if flip else values)


def open_mask(photo: Photo) -> Image.Image | None:
    """The mask of the whole image, grey, of any size; None and errors as `load_mask`."""
    if photo.mask is None:
        return None
    if photo.mask == photo.path:
        return _alpha(open_verified(photo.mask, photo.mask_digest))
    return _load_grey(photo)


def _alpha(image: Image.Image) -> Image.Image:
    return image.convert("RGBA").getchannel("A")


def _load_grey(photo: Photo) -> Image.Image:
    """The mask file in grey; transparent pixels count as black."""
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
    exact = mask.convert("F")  # 8 bits would round each mean
    return np.asarray(exact.resize(size, Image.Resampling.BOX, box=box)) / 255


def _check_mask(photo: Photo, mask: Image.Image) -> Photo:
    aspects = mask.width / mask.height, photo.width / photo.height
    if abs(aspects[0] / aspects[1] - 1) > _ASPECT_TOLERANCE:
        assert photo.mask is not None
        raise SubjectError(
            f"its mask {photo.mask.name} ({mask.width}x{mask.height}) differs in aspect ratio from "
            f"the image ({photo.width}x{photo.height}); make the mask from the upright image"
        )
    if not _crop_to_latents(photo, mask).any():
        how = "make the subject opaque" if photo.mask == photo.path else "paint the subject white"
        raise SubjectError(f"its mask is empty within the crop; {how}")
    return photo
