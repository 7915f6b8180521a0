"""DINOv2 (arXiv:2304.07193): similarity of subjects, learned without text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor
from transformers import Dinov2Model

from ..trainers.base_file import read_config
from .encoders import ChooseDevice, Values, Vectors, choose_cpu, cosines
from .vision import (
    Preprocessing,
    VisionModel,
    lazy_loader,
    load_pretrained,
    read_preprocessing,
    unit_vectors,
    weights_digest,
    weights_size,
    wrap_load_errors,
)

_IMAGENET = Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Dino:
    """DINOv2's class token; the similarity is the cosine, as in DreamBooth's DINO score.

    `load` returns the model.
    """

    name: str
    digest: str
    load: Callable[[], VisionModel]
    key: str = "dino"
    identity_only: bool = False

    def encode(self, images: Sequence[Image.Image]) -> Vectors:
        """Unit vectors (n, width). Raises ComparisonError."""
        model, preprocessing = self.load()

        def class_token(seen: Tensor) -> Tensor:
            return model(pixel_values=seen).pooler_output  # (n, width)

        return unit_vectors(model, preprocessing, images, class_token)

    def likeness(self, a: Vectors, b: Vectors) -> Values:
        """Cosines (n, m)."""
        return cosines(a, b)


def load_dino(path: Path, cache: Path | None = None, device: ChooseDevice = choose_cpu) -> Dino:
    """Opens DINOv2 in a local transformers folder; loaded on first use. Raises ComparisonError."""
    with wrap_load_errors(f"The folder {path}"):
        if read_config(path / "config.json").get("model_type") != "dinov2":
            raise ValueError("its config.json is not DINOv2's")
        digest = weights_digest([path], cache)

    def load() -> VisionModel:
        with wrap_load_errors(f"The folder {path}"):
            return load_pretrained(Dinov2Model, path), read_preprocessing(path, _IMAGENET)

    lazy_load = lazy_loader(load, weights_size(path), device)
    return Dino(f"DINOv2 ({path.name})", digest, lazy_load)
