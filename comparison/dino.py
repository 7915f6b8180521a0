"""DINOv2 (arXiv:2304.07193): likeness of subjects, learned without words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from transformers import Dinov2Model

from ..trainers.base_file import read_config
from .encoders import Values, Vectors, cosines
from .vision import (
    Preprocessing,
    preprocessing_of,
    unfit,
    unit_vectors,
    weights_digest,
    whole_model,
)

# Of ImageNet.
_IMAGENET = Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Dino:
    """The class token of DINOv2; the likeness is the cosine, as DreamBooth's DINO score."""

    name: str
    digest: str
    model: Any
    preprocessing: Preprocessing
    key: str = "dino"
    who: bool = False

    def encode(self, pictures: Sequence[Image.Image]) -> Vectors:
        """Unit vectors (n, width)."""

        def class_token(seen: Tensor) -> Tensor:
            return self.model(pixel_values=seen).pooler_output  # (n, width)

        return unit_vectors(self.model, self.preprocessing, pictures, class_token)

    def likeness(self, a: Vectors, b: Vectors) -> Values:
        """Cosines (n, m)."""
        return cosines(a, b)


def load_dino(path: Path, cache: Path | None = None, device: str = "cpu") -> Dino:
    """DINOv2 of a local transformers folder. Raises ComparisonError."""
    with unfit(f"The folder {path}"):
        if read_config(path / "config.json").get("model_type") != "dinov2":
            raise ValueError("its config.json is not DINOv2's")
        model = whole_model(Dinov2Model, path)
        preprocessing, digest = preprocessing_of(path, _IMAGENET), weights_digest([path], cache)
    return Dino(f"DINOv2 ({path.name})", digest, model.eval().to(device), preprocessing)
