"""Usable photographs that deserve a second look: blurred ones and near duplicates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

# Variance of the Laplacian below which an image looks blurred at a glance. 15 sharp photographs
# have at least 194; blurred by 3 of 512 pixels, at most 35.
BLUR_THRESHOLD = 40.0
# Most bits of 128 in which hashes of near duplicates differ. Saving again as a small JPEG, or
# brightening by a fifth, changes 5; other photographs of the same subject differ in at least 43,
# drawings of it at 64 pixels in 8.
NEAR_DUPLICATE_BITS = 7

_SIDE = 256


def sharpness(pixels: np.ndarray) -> float:
    """Variance of the Laplacian of the grey image, scaled to at most 256 pixels a side.

    After Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.

    Args:
        pixels: (H, W, 3), uint8.
    """
    image = Image.fromarray(pixels).convert("L")
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    grey = np.asarray(image, np.float32)
    around = grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1]
    return float((around - 4 * grey[1:-1, 1:-1]).var())


def difference_hash(pixels: np.ndarray) -> np.ndarray:
    """128 bits that say where an image gets brighter to the right, and where downwards.

    Args:
        pixels: (H, W, 3), uint8.
    """
    grey = Image.fromarray(pixels).convert("L").resize((9, 9), Image.Resampling.BOX)
    field = np.asarray(grey, np.int16)
    right, down = field[:8, 1:] > field[:8, :-1], field[1:, :8] > field[:-1, :8]
    return np.concatenate([right.ravel(), down.ravel()])


def find_near_duplicates(hashes: Sequence[np.ndarray]) -> list[int | None]:
    """For each hash, the index of the first earlier one that it nearly equals, or None."""
    table = np.array(hashes)  # (n, 128)
    found: list[int | None] = []
    for number, one in enumerate(table):
        alike = (table[:number] != one).sum(axis=1) <= NEAR_DUPLICATE_BITS
        found.append(int(alike.argmax()) if alike.any() else None)
    return found
