"""Shared by the vision encoders: preprocessing, lazy loading, and normalised vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..trainers.base_file import read_config, read_shapes
from ..trainers.digests import content_digest
from ..trainers.errors import LikenessError
from ..trainers.memory import is_out_of_memory
from .encoders import ChooseDevice, Vectors
from .errors import ComparisonError

_BATCH = 8
VisionModel = tuple[Any, "Preprocessing"]
VERSION = 3  # of the preprocessing; part of the encoders' digests


@dataclass(frozen=True)
class Preprocessing:
    """Resizes the shorter side to `shortest_edge`, then crops the centre to `size`, in pixels.

    `mean` and `std` are per channel, for values from 0 to 1. With `square`, both sides become
    `shortest_edge`, whatever the image's aspect ratio.
    """

    shortest_edge: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    square: bool = False
    resample: Image.Resampling = Image.Resampling.BICUBIC

    def __call__(self, image: Image.Image) -> Tensor:
        """The normalised image, (3, size, size)."""
        shortest = min(image.size)
        width, height = (self.shortest_edge * side // shortest for side in image.size)
        if self.square:
            width = height = self.shortest_edge
        left, top = (width - self.size) // 2, (height - self.size) // 2
        seen = image.resize((width, height), self.resample)
        seen = seen.crop((left, top, left + self.size, top + self.size))
        values = torch.from_numpy(np.array(seen)).float().permute(2, 0, 1) / 255
        mean, std = (torch.tensor(part)[:, None, None] for part in (self.mean, self.std))
        return (values - mean) / std


def lazy_loader(
    load: Callable[[], VisionModel], size: int, device: ChooseDevice
) -> Callable[[], VisionModel]:
    """A function that loads the model of `size` bytes to its device on the first call."""

    @cache
    def lazy_load() -> VisionModel:
        where = device(size)  # frees memory before the model is read
        model, preprocessing = load()
        return model.eval().to(where), preprocessing

    return lazy_load


def weights_size(path: Path) -> int:
    """Size in fp32 of the weights in a file or transformers folder, in bytes; an estimate."""
    file = path / "model.safetensors" if path.is_dir() else path
    try:
        return 4 * sum(map(prod, read_shapes(file).values()))
    except LikenessError:  # not safetensors: assumes fp16
        return 2 * file.stat().st_size if file.is_file() else 0


@torch.no_grad()
def unit_vectors(
    model: Any,
    preprocessing: Preprocessing,
    images: Sequence[Image.Image],
    features: Callable[[Tensor], Tensor],
) -> Vectors:
    """`features` of preprocessed batches (n, 3, size, size), normalised to length 1: (n, d)."""
    device, parts = next(model.parameters()).device, []
    for start in range(0, len(images), _BATCH):
        seen = torch.stack([preprocessing(image) for image in images[start : start + _BATCH]])
        parts.append(F.normalize(features(seen.to(device)).float(), dim=-1).cpu())
    return np.asarray(torch.cat(parts).numpy(), np.float32)


@contextmanager
def wrap_load_errors(what: str) -> Iterator[None]:
    """Turns errors of loading unsuitable files into ComparisonErrors that name `what`."""
    try:
        yield
    except ComparisonError:
        raise
    except KeyError as error:
        raise ComparisonError(f"{what} cannot be used: it lacks {error.args[0]}.") from error
    except (LikenessError, OSError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise ComparisonError(f"{what} cannot be used: {error}") from error


def load_pretrained(kind: Any, folder: Path) -> Any:
    """Loads the model of a transformers folder. Raises KeyError with the name of a missing weight.

    transformers itself only warns and initialises missing weights at random.
    """
    model, info = kind.from_pretrained(
        str(folder),
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        attn_implementation="sdpa",  # a folder's config could name code to download
    )
    for name in sorted(info["missing_keys"]):
        raise KeyError(name)
    return model


def read_preprocessing(folder: Path, default: Preprocessing) -> Preprocessing:
    """The preprocessing in a folder's preprocessor_config.json; missing values from `default`.

    Without a centre crop in it, the centre is cropped to a square of the shorter side nevertheless:
    images of all shapes go into one batch. Raises ValueError for an unknown `resample`.
    """
    path = folder / "preprocessor_config.json"
    data = read_config(path) if path.is_file() else {}
    size = data.get("size")
    edge = _parse_side(size, default.shortest_edge)
    crop = _parse_side(data.get("crop_size"), default.size)
    return Preprocessing(
        edge,
        crop if data.get("do_center_crop", True) else edge,
        tuple(data.get("image_mean", default.mean)),
        tuple(data.get("image_std", default.std)),
        square=isinstance(size, dict) and "shortest_edge" not in size,
        resample=Image.Resampling(data.get("resample", default.resample)),
    )


def _parse_side(value: Any, default: int) -> int:
    """A side as transformers writes it: a number, or an object with shortest_edge or height."""
    if isinstance(value, dict):
        value = value.get("shortest_edge", value.get("height"))
    return default if value is None else int(value)


def weights_digest(paths: Sequence[Path], known: Path | None) -> str:
    """SHA-256 of weights and preprocessing; `known` as in `content_digest`."""
    parts = [str(VERSION)]
    for path in paths:
        folder = ("config.json", "preprocessor_config.json", "model.safetensors")
        files = [path / name for name in folder] if path.is_dir() else [path]
        parts += [content_digest(file, known) for file in files if file.is_file()]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()
