"""Identifies encoders in model folders by their headers, without reading weights."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from ..trainers.safetensors_file import read_header
from .clip_names import IMAGE_PROJECTION, TEXT_PROJECTION


def encoder_path(file: Path) -> Path:
    """The transformers folder that a listed file belongs to, or the file itself."""
    own = file.name == "model.safetensors" and (file.parent / "config.json").is_file()
    return file.parent if own else file


def first_clip(files: Iterable[Path]) -> Path | None:
    """The first CLIP image encoder with a projection, as `EncoderFiles.clip_image`, or None."""
    return next((encoder_path(file) for file in files if image_width(encoder_path(file))), None)


def first_text(files: Iterable[Path], image: Path) -> Path | None:
    """The first text encoder whose projection has the width of the image encoder's, or None."""
    width = image_width(image)
    return next((file for file in files if width and _text_width(file) == width), None)


def first_dino(files: Iterable[Path]) -> Path | None:
    """The first transformers folder of DINOv2, or None."""
    folders = (encoder_path(file) for file in files)
    return next((folder for folder in folders if _model_type(folder) == "dinov2"), None)


def image_width(place: Path) -> int | None:
    """Width of the vectors of a CLIP image encoder; None if `place` is not one."""
    if not place.is_dir():
        return _width(place, "visual_projection.weight", 0) or _width(place, IMAGE_PROJECTION, 1)
    if _model_type(place) not in ("clip", "clip_vision_model"):
        return None
    return _width(place / "model.safetensors", "visual_projection.weight", 0)


def _text_width(file: Path) -> int | None:
    return _width(file, "text_projection.weight", 0) or _width(file, TEXT_PROJECTION, 1)


def _width(file: Path, projection: str, axis: int) -> int | None:
    """The size along `axis` of the projection matrix in a file; None without one."""
    try:
        shape = read_header(file).shapes.get(projection, ())
    except (OSError, ValueError):
        return None
    return shape[axis] if len(shape) == 2 else None


def _model_type(folder: Path) -> str | None:
    try:
        data = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return data.get("model_type") if isinstance(data, dict) else None
