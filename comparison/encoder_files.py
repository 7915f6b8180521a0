"""Which files of model folders are encoders, told from their headers: no weights are read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from ..trainers.safetensors_file import read_header
from .clip_names import IMAGE_PROJECTION, TEXT_PROJECTION


def encoder_path(file: Path) -> Path:
    """The transformers folder whose weights a listed file is, or else the file itself."""
    own = file.name == "model.safetensors" and (file.parent / "config.json").is_file()
    return file.parent if own else file


def first_clip(files: Iterable[Path]) -> Path | None:
    """The first that is an image encoder of CLIP with its projection, as `encoders` takes it."""
    return next((encoder_path(file) for file in files if image_width(encoder_path(file))), None)


def first_text(files: Iterable[Path], image: Path) -> Path | None:
    """The first text encoder whose projection is as wide as that of an image encoder."""
    width = image_width(image)
    return next((file for file in files if width and _text_width(file) == width), None)


def first_dino(files: Iterable[Path]) -> Path | None:
    """The first transformers folder of DINOv2."""
    folders = (encoder_path(file) for file in files)
    return next((folder for folder in folders if _model_type(folder) == "dinov2"), None)


def image_width(place: Path) -> int | None:
    """How many numbers CLIP gives for a picture; None for what is no image encoder of CLIP."""
    if not place.is_dir():
        return _width(place, "visual_projection.weight", 0) or _width(place, IMAGE_PROJECTION, 1)
    if _model_type(place) not in ("clip", "clip_vision_model"):
        return None
    return _width(place / "model.safetensors", "visual_projection.weight", 0)


def _text_width(file: Path) -> int | None:
    return _width(file, "text_projection.weight", 0) or _width(file, TEXT_PROJECTION, 1)


def _width(file: Path, projection: str, axis: int) -> int | None:
    """The size of a matrix among a file's tensors."""
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
