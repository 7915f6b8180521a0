"""What is worth a second look among usable photographs: blurred ones, and near copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

# Variance of the Laplacian below which a picture looks blurred at a glance. Of 15 sharp
# photographs the least has 194; blurred by 3 of 512 pixels the most has 35.
BLUR_THRESHOLD = 40.0
# Bits of 128 in which the fingerprints of near copies differ at most. Stored again as a small JPEG
# or brighter by a fifth it is 5; other photographs of the same subject differ in 43 at least,
# drawings of it at 64 pixels in 8.
NEAR_DUPLICATE_BITS = 7

_SIDE = 256


def sharpness(pixels: np.ndarray) -> float:
    """Variance of the Laplacian of the grey picture on at most 256 pixels a side.

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
    """128 bits that say where a picture grows brighter to the right, and where downwards.

    Args:
        pixels: (H, W, 3), uint8.
    """
    grey = Image.fromarray(pixels).convert("L").resize((9, 9), Image.Resampling.BOX)
    field = np.asarray(grey, np.int16)
    right, down = field[:8, 1:] > field[:8, :-1], field[1:, :8] > field[:-1, :8]
    return np.concatenate([right.ravel(), down.ravel()])


def find_near_duplicates(hashes: Sequence[np.ndarray]) -> list[int | None]:
    """For each hash the index of the first one before it that it nearly equals, or None."""
    table = np.array(hashes)  # (n, 128)
    found: list[int | None] = []
    for number, one in enumerate(table):
        alike = (table[:number] != one).sum(axis=1) <= NEAR_DUPLICATE_BITS
        found.append(int(alike.argmax()) if alike.any() else None)
    return found
