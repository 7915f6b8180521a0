"""Picture files of any kind as upright 8-bit sRGB, and pictures as PNG."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image, ImageCms, ImageFile, PngImagePlugin, UnidentifiedImageError

from .errors import SubjectError

# EPS and PDF are left out: PIL would start a program to draw them.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "HEIF", "JPEG2000", "PPM", "TGA")
_WIDE_MODES = ("I", "I;16", "I;16L", "I;16B")  # grey of 16 bits
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_MAX_PIXELS = 178_956_970  # PIL's own limit; checked here because a host may have lifted it

# What PIL's decoders raise on damaged data, beside OSError.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    RuntimeError,  # of libheif
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
)

# EXIF tag 274 (orientation): how to turn the stored picture upright (CIPA DC-008, 4.6.5.A).
_EXIF_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def png(
    image: Image.Image, compress_level: int = 6, pnginfo: PngImagePlugin.PngInfo | None = None
) -> bytes:
    """A PNG file of a picture, with text chunks; `compress_level` as zlib's, 0 to 9."""
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=compress_level, pnginfo=pnginfo)
    return data.getvalue()


def open_image(source: Path | io.BytesIO) -> Image.Image:
    """The first frame, decoded whole and turned upright, in the mode of the file.

    Raises SubjectError, whose text says why the file is refused and what to do.
    """
    try:
        with strict_decoding(), Image.open(source, formats=_known_formats()) as image:
            _check_header(image)
            image.load()
            return _exif_transpose(image)
    except UnidentifiedImageError:
        raise SubjectError(
            "it is not a picture that can be read here; convert it to JPEG or PNG, or remove it"
        ) from None
    except Image.DecompressionBombError:
        raise SubjectError(_too_large()) from None
    except _DECODE_ERRORS as error:
        raise SubjectError(
            f"the picture is damaged or cut off ({error}); export or copy it again"
        ) from None


def open_verified(path: Path, digest: str | None) -> Image.Image:
    """`open_image` of a file whose SHA-256 is `digest`. Raises SubjectError that names it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SubjectError(f"{path} cannot be read: {error.strerror}.") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise SubjectError(f"{path} has changed since it was checked; start again.")
    try:
        return open_image(io.BytesIO(data))
    except SubjectError as error:
        raise SubjectError(f"{path}: {error}") from None


@cache  # a failed import is searched for anew each time
def _register_heif() -> None:
    """Else HEIC would be known only where another of ComfyUI's packs asks for it."""
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()


def _known_formats() -> list[str]:
    Image.init()
    _register_heif()
    return [name for name in _FORMATS if name in Image.OPEN]


@cache
def image_extensions() -> frozenset[str]:
    """How the names of picture files end, ".jpg" and others: a hint, for the content counts.

    HEIC's are among them also where it cannot be read, so that the reason is told.
    """
    known = _known_formats()
    found = (end for end, name in Image.registered_extensions().items() if name in known)
    return frozenset({*found, ".heic", ".heif"})


@dataclass
class _StrictState:
    """How many threads ask for it now, and what was set before."""

    lock: Lock = field(default_factory=Lock)
    inside: int = 0
    before: bool = False


_STRICT = _StrictState()


@contextmanager
def strict_decoding() -> Iterator[None]:
    """A cut-off file is an error even where a host told PIL to fill the rest with grey.

    The setting is the whole process's: it is the host's again when the last thread leaves.
    """
    with _STRICT.lock:
        if not _STRICT.inside:
            _STRICT.before = ImageFile.LOAD_TRUNCATED_IMAGES
        _STRICT.inside += 1
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _STRICT.lock:
            _STRICT.inside -= 1
            if not _STRICT.inside:
                ImageFile.LOAD_TRUNCATED_IMAGES = _STRICT.before


def _check_header(image: Image.Image) -> None:
    if image.width * image.height > _MAX_PIXELS:
        raise SubjectError(_too_large())
    if image.mode not in _MODES + _WIDE_MODES:
        raise SubjectError(
            f"its pixel format {image.mode} cannot be used; save it as an 8-bit RGB picture"
        )


def _too_large() -> str:
    return f"it has more than {_MAX_PIXELS // 10**6} million pixels; save a smaller copy"


def _exif_transpose(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(274)
    except _DECODE_ERRORS:
        orientation = None  # a damaged EXIF block does not spoil the picture
    return (
        image.transpose(_EXIF_TRANSPOSE[orientation])
        if orientation in _EXIF_TRANSPOSE
        else image.copy()
    )


def to_srgb(image: Image.Image) -> Image.Image:
    """The picture in mode RGB: transparency on white, 16 bits to 8, an embedded ICC profile used.

    A profile that does not fit the picture is ignored, as web browsers do.
    """
    profile = image.info.get("icc_profile")
    if image.mode in _WIDE_MODES:
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    elif image.has_transparency_data:
        clear = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), clear).convert("RGB")
    elif image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        converted = None
    return converted or image.convert("RGB")
