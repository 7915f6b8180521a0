"""Reads image files of any format as upright 8-bit sRGB, and encodes PNG."""

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

from .errors import SubjectError, pip_install

# Without EPS and PDF, for which PIL would start an external program.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "HEIF", "JPEG2000", "PPM", "TGA")
# Of images that cannot be read: drawings, camera raw files, and formats of optional packages.
_UNREAD_EXTENSIONS = (
    *(".heic", ".heif", ".hif", ".avif", ".jxl", ".eps", ".svg", ".psd", ".xcf"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"),
)
_WIDE_MODES = ("I", "I;16", "I;16L", "I;16B")  # 16-bit grey
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_MAX_PIXELS = 178_956_970  # PIL's own limit; checked here, as a host may have lifted it

# ISO/IEC 23008-12, annex B; mif1 and msf1 also begin AVIF files, which name avif after them.
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")

# What PIL's decoders raise on damaged data.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    RuntimeError,  # from libheif
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
)

# EXIF tag 274 (orientation): how to turn the stored image upright (CIPA DC-008, 4.6.5.A).
# ImageOps.exif_transpose also writes the other tags anew, and fails if one of them is damaged.
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
    """The image as a PNG file, with text chunks; `compress_level` is zlib's, 0 to 9."""
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=compress_level, pnginfo=pnginfo)
    return data.getvalue()


def open_image(source: Path | io.BytesIO) -> Image.Image:
    """The first frame, fully decoded and upright, in the file's mode.

    Raises SubjectError, which says why the file is rejected and what to do.
    """
    try:
        with strict_decoding(), Image.open(source, formats=_known_formats()) as image:
            _check_header(image)
            image.load()
            return _exif_transpose(image)
    except UnidentifiedImageError:
        raise SubjectError(_unidentified(source)) from None
    except Image.DecompressionBombError:
        raise SubjectError(_too_large()) from None
    except _DECODE_ERRORS as error:
        raise SubjectError(
            f"the image is damaged or truncated ({error}); export or copy it again"
        ) from None


def _unidentified(source: Path | io.BytesIO) -> str:
    """Why PIL recognised no image: HEIC without its package, or something else."""
    if "HEIF" not in Image.OPEN and _is_heif(source):
        return (
            "it is HEIC, the iPhone's format: export it as JPEG, or install the package "
            "pillow-heif into the Python in use and restart ComfyUI. The command: "
            f"{pip_install('pillow-heif')}"
        )
    return "it is not an image in a supported format; convert it to JPEG or PNG, or remove it"


def _is_heif(source: Path | io.BytesIO) -> bool:
    if isinstance(source, io.BytesIO):
        start = source.getvalue()[:64]
    else:
        with open(source, "rb") as file:
            start = file.read(64)
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS and b"avif" not in start


def open_verified(path: Path, digest: str | None) -> Image.Image:
    """`open_image` of a file whose SHA-256 is `digest`. Raises SubjectError naming the file."""
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


@cache  # a failed import would be tried again each time
def _register_heif() -> None:
    """Registers HEIC, which else works only if another of ComfyUI's packs registers it."""
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()


def _known_formats() -> list[str]:
    Image.init()
    _register_heif()
    return [name for name in _FORMATS if name in Image.OPEN]


@cache
def image_extensions() -> frozenset[str]:
    """Extensions of image files, ".jpg" etc.: a hint only, as the content decides.

    Includes those of images that cannot be read, so that users learn why.
    """
    known = _known_formats()
    found = (end for end, name in Image.registered_extensions().items() if name in known)
    return frozenset({*found, *_UNREAD_EXTENSIONS})


@dataclass
class _StrictState:
    """How many threads are inside `strict_decoding`, and the setting before."""

    lock: Lock = field(default_factory=Lock)
    inside: int = 0
    before: bool = False


_STRICT = _StrictState()


@contextmanager
def strict_decoding() -> Iterator[None]:
    """Makes a truncated file an error, even if the host told PIL to fill the rest with grey.

    The setting is process-wide; the host's value is restored when the last thread leaves.
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
            f"its pixel format {image.mode} is not supported; save it as an 8-bit RGB image"
        )


def _too_large() -> str:
    return f"it has more than {_MAX_PIXELS // 10**6} million pixels; save a smaller copy"


def _exif_transpose(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(274)
    except _DECODE_ERRORS:
        orientation = None  # damaged EXIF does not invalidate the image
    return (
        image.transpose(_EXIF_TRANSPOSE[orientation])
        if orientation in _EXIF_TRANSPOSE
        else image.copy()
    )


def to_srgb(image: Image.Image) -> Image.Image:
    """Converts to mode RGB: composites on white, reduces 16 bits to 8, applies an ICC profile.

    A profile that does not fit the image is ignored, as in web browsers.
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
