"""Where a photograph is cropped, and to what size: squares, aspect-ratio buckets, faces."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from .errors import MissingPackage
from .image_io import to_srgb

Box = tuple[int, int, int, int]  # left, top, right, bottom
FaceDetector = Callable[[Image.Image], "Box | None"]


def crop_box(
    width: int,
    height: int,
    size: tuple[int, int],
    face: Box | None = None,
    share: float = 0.0,
    *,
    at_top: bool = False,
) -> Box:
    """The largest box with the aspect ratio of `size` inside an image of `width` x `height`.

    Centred, or `at_top` of the image, if it is less high; or, with a face, with the face's centre
    in its middle column at 40 % of its height, as far as the image's edges allow. If the face's
    height is less than `share` of the box's, the box is smaller, but not below `size`.
    """
    scale = min(width / size[0], height / size[1])
    if face is not None and share:
        scale = min(scale, max(1.0, (face[3] - face[1]) / share / size[1]))
    w, h = min(width, round(size[0] * scale)), min(height, round(size[1] * scale))
    left, top = (width - w) // 2, 0 if at_top else (height - h) // 2
    if face is not None:
        left = round((face[0] + face[2]) / 2 - 0.5 * w)
        top = round((face[1] + face[3]) / 2 - 0.4 * h)
        left, top = max(0, min(left, width - w)), max(0, min(top, height - h))
    return left, top, left + w, top + h


def bucket_sizes(resolution: int) -> list[tuple[int, int]]:
    """The (width, height) of the aspect-ratio buckets: those that cannot grow on either side.

    The area is at most resolution^2 and the aspect ratio from 1:2 to 2:1. Sides are multiples of 64
    for a resolution of at least 512; below, of the power of two that divides the resolution into 8
    to 16 parts, but at least of 8 (one latent).
    """
    unit = max(8, min(64, 1 << int(math.log2(resolution / 8))))

    def longest(side: int) -> int:
        return resolution**2 // side // unit * unit

    widths = range(unit, 2 * resolution, unit)
    sizes = [(width, longest(width)) for width in widths if longest(width)]
    return [(w, h) for w, h in sizes if longest(h) == w and 0.5 <= w / h <= 2]


def bucket_for(width: int, height: int, resolution: int) -> tuple[int, int]:
    """The bucket nearest to the image's aspect ratio in log space; the largest if tied."""

    def distance(size: tuple[int, int]) -> tuple[float, int]:
        return abs(math.log(size[0] / size[1] * height / width)), -size[0] * size[1]

    return min(bucket_sizes(resolution), key=distance)


def load_face_detector() -> FaceDetector:
    """A function from an upright image to the box of its largest face, or None.

    dlib's frontal HOG detector, on a copy of at most 800 pixels a side; if it finds no face there,
    on the copy at twice its size, for faces below 80 pixels. Raises MissingPackage.
    """
    try:
        import dlib
    except ImportError:
        raise MissingPackage("dlib-bin", "The face crop") from None
    detector: Any = dlib.get_frontal_face_detector()

    def find(image: Image.Image) -> Box | None:
        small = to_srgb(image)
        small.thumbnail((800, 800))
        pixels = np.asarray(small)
        faces = detector(pixels, 0) or detector(pixels, 1)
        if not faces:
            return None
        face = max(faces, key=lambda rectangle: rectangle.area())
        scale = image.width / small.width
        left, top, right, bottom = face.left(), face.top(), face.right(), face.bottom()
        return round(left * scale), round(top * scale), round(right * scale), round(bottom * scale)

    return find
