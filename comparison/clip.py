"""CLIP (arXiv:2103.00020): how alike pictures are, and how well they show their prompts.

Weights come from a local transformers folder or from the files that ComfyUI keeps in
``clip_vision`` and ``text_encoders``, in transformers' or open_clip's names; their sizes are read
off the tensors' shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from ..trainers.base_file import read_config
from ..trainers.ldm_names import text_config
from ..trainers.text import tokenize
from ..trainers.tokenizer import find_tokenizers, load_tokenizer
from ..trainers.weights import read_weights
from .clip_names import transformers_names
from .encoders import Device, EncoderFiles, PromptEncoder, Values, Vectors, cosines, on_cpu
from .errors import ComparisonError
from .vision import (
    Preprocessing,
    Sight,
    bytes_of,
    loaded_late,
    preprocessing_of,
    unfit,
    unit_vectors,
    weights_digest,
    whole_model,
)

StateDict = Mapping[str, Tensor]

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Of ViT-B, L, H, g and bigG, by width.
_HEADS = {768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}
# Widths of OpenAI's image and text encoders, which have the quick GELU.
_OPENAI, _OPENAI_TEXT = (768, 1024), (512, 768)


@dataclass(frozen=True)
class ClipImages:
    """An image encoder of CLIP; the likeness is the cosine, DreamBooth's CLIP-I.

    `load` gives the model.
    """

    name: str
    digest: str
    load: Callable[[], Sight]
    key: str = "clip"
    who: bool = False

    def encode(self, pictures: Sequence[Image.Image]) -> Vectors:
        """Unit vectors (n, projection). Raises ComparisonError."""
        model, preprocessing = self.load()
        return unit_vectors(
            model, preprocessing, pictures, lambda seen: model(pixel_values=seen).image_embeds
        )

    def likeness(self, a: Vectors, b: Vectors) -> Values:
        """Cosines (n, m)."""
        return cosines(a, b)


@dataclass(frozen=True)
class Clip:
    """Both encoders of CLIP; the prompt match is the cosine of picture and text, CLIP-T."""

    images: ClipImages
    text: Any
    tokenizer: CLIPTokenizer
    name: str
    key: str = "clip"
    who: bool = False

    @property
    def digest(self) -> str:
        """Of the image encoder: texts are not remembered."""
        return self.images.digest

    def encode(self, pictures: Sequence[Image.Image]) -> Vectors:
        """As that of `images`."""
        return self.images.encode(pictures)

    def likeness(self, a: Vectors, b: Vectors) -> Values:
        """Cosines (n, m)."""
        return cosines(a, b)

    @torch.no_grad()
    def prompt_match(self, vectors: Vectors, prompts: Sequence[str]) -> Values:
        """The cosine (n,) of each vector and its prompt, cut to 77 tokens."""
        unlike = sorted(set(prompts))
        ids = tokenize(self.tokenizer, unlike).to(next(self.text.parameters()).device)
        embeds = F.normalize(self.text(input_ids=ids).text_embeds.float(), dim=-1).cpu().numpy()
        texts = embeds[[unlike.index(prompt) for prompt in prompts]]
        return np.asarray((vectors * texts).sum(1), np.float64)


def load_clip(files: EncoderFiles, device: Device = on_cpu) -> ClipImages | PromptEncoder:
    """CLIP of `files`, with its text encoder where that is given or lies in the same place.

    Raises ComparisonError for files that are damaged, of another kind, or not of one CLIP; for
    what only the whole image encoder tells, when that is loaded.
    """
    path = files.clip_image
    if path is None:
        raise ComparisonError("No image encoder of CLIP is given.")
    with unfit(f"The image encoder {path.name}"):
        wide = _projection(path)
        digest = weights_digest([path], files.cache)
    sight = loaded_late(partial(_images, path), bytes_of(path), device)
    images = ClipImages(f"CLIP ({path.name})", digest, sight)
    text_path = files.clip_text or (path if _has_text(path) else None)
    if text_path is None:
        return images
    model, tokenizer = _text_encoder(text_path, files.tokenizers)
    _check_pair(wide, model.config.projection_dim, path, text_path)
    names = dict.fromkeys((path.name, text_path.name))
    size = 4 * sum(weight.numel() for weight in model.parameters())
    text = model.eval().to(device(size))
    return Clip(images, text, tokenizer, f"CLIP ({', '.join(names)})")


def _images(path: Path) -> Sight:
    """Raises ComparisonError."""
    with unfit(f"The image encoder {path.name}"):
        if path.is_dir():
            return _from_folder(CLIPVisionModelWithProjection, path), _preprocessing(path)
        return _vision(_state(path))


def _projection(path: Path) -> int:
    """How many numbers an image encoder gives. Raises KeyError, ValueError or LikenessError."""
    if path.is_dir():
        config = _config(CLIPVisionModelWithProjection, path)
        part = config.get("vision_config", config)
        return int(part.get("projection_dim", CLIPVisionConfig().projection_dim))
    return int(_state(path)["visual_projection.weight"].shape[0])


def _text_encoder(path: Path, tokenizers: Sequence[Path]) -> tuple[Any, CLIPTokenizer]:
    with unfit(f"The text encoder {path.name}"):
        if path.is_dir():
            model = _from_folder(CLIPTextModelWithProjection, path)
        else:
            model = _text(_state(path))
        vocabulary = model.config.vocab_size
        for folder in find_tokenizers(path, [path, *tokenizers]):
            tokenizer = load_tokenizer(folder)
            if len(tokenizer) == vocabulary:
                return model, tokenizer
        raise ValueError(f"no tokenizer of its {vocabulary:,} entries was found")


def _check_pair(wide: int, other: int, path: Path, text_path: Path) -> None:
    if wide != other:
        raise ComparisonError(
            f"{path.name} gives {wide} numbers for a picture and {text_path.name} {other} for a "
            "text: they are not of one CLIP. Choose the two that belong together."
        )


def _has_text(path: Path) -> bool:
    if path.is_dir():
        return read_config(path / "config.json").get("model_type") == "clip"
    return "text_projection.weight" in _state(path)


def _state(path: Path) -> StateDict:
    return transformers_names(read_weights(path))


def _from_folder(kind: Any, path: Path) -> Any:
    _config(kind, path)
    return whole_model(kind, path)


def _config(kind: Any, path: Path) -> dict[str, Any]:
    """A folder's config.json. Raises ValueError unless it is of CLIP."""
    config = read_config(path / "config.json")
    if config.get("model_type") not in ("clip", kind.config_class.model_type):
        raise ValueError("its config.json is not CLIP's")
    return config


def _preprocessing(path: Path) -> Preprocessing:
    config = read_config(path / "config.json")
    size = config.get("vision_config", config).get("image_size", 224)
    return preprocessing_of(path, Preprocessing(size, size, MEAN, STD))


def _vision(state: StateDict) -> tuple[CLIPVisionModelWithProjection, Preprocessing]:
    """An image encoder under transformers' names. Raises KeyError naming what is absent."""
    width, _, patch, _ = state["vision_model.embeddings.patch_embedding.weight"].shape
    positions = state["vision_model.embeddings.position_embedding.weight"].shape[0]
    size = patch * int((positions - 1) ** 0.5)
    layer = "vision_model.encoder.layers.{}.mlp.fc1.weight"
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=state[layer.format(0)].shape[0],
        num_hidden_layers=sum(layer.format(n) in state for n in range(len(state))),
        num_attention_heads=_heads(width),
        image_size=size,
        patch_size=patch,
        projection_dim=state["visual_projection.weight"].shape[0],
        hidden_act="quick_gelu" if width in _OPENAI else "gelu",
    )
    model = _filled(CLIPVisionModelWithProjection(config), state)
    return model, Preprocessing(size, size, MEAN, STD)


def _heads(width: int) -> int:
    """Raises ValueError for a large encoder that is not known: other heads give other vectors."""
    if width not in _HEADS and width > min(_HEADS):
        raise ValueError(
            f"an image encoder {width} wide is not known: take its transformers folder"
        )
    return _HEADS.get(width, max(1, width // 64))


def _text(state: StateDict) -> CLIPTextModelWithProjection:
    """A text encoder under transformers' names. Raises KeyError naming what is absent."""
    state = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    shapes = {name.removeprefix("text_model."): tuple(t.shape) for name, t in state.items()}
    config = text_config(shapes) | {"projection_dim": shapes["text_projection.weight"][0]}
    config["hidden_act"] = "quick_gelu" if config["hidden_size"] in _OPENAI_TEXT else "gelu"
    return _filled(CLIPTextModelWithProjection(CLIPTextConfig(**config)), state)


def _filled(model: Any, state: StateDict) -> Any:
    """`model` with its tensors from `state`, in fp32."""
    wanted = model.state_dict()
    model.load_state_dict(
        {name: state[name].float() for name in wanted if "position_ids" not in name}, strict=False
    )
    return model
