"""Image encoding for the browser."""

from __future__ import annotations

import io

from PIL import Image


def encode_webp(image: Image.Image, quality: int = 85) -> bytes:
    """The bytes of a WebP file of an RGB image."""
    data = io.BytesIO()
    image.save(data, "WEBP", quality=quality, method=2)
    return data.getvalue()
