"""CLIP (arXiv:2103.00020): similarity of images, and of images and prompts.

Weights come from a local transformers folder, or from the files that ComfyUI keeps in
``clip_vision`` and ``text_encoders``, with transformers' or open_clip's names; the sizes are
inferred from the tensors' shapes.
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
from ..trainers.text_encoding import tokenize
from ..trainers.tokenizer import find_tokenizers, load_tokenizer
from ..trainers.weights import read_weights
from .clip_names import transformers_names
from .encoders import (
    ChooseDevice,
    EncoderFiles,
    PromptEncoder,
    Values,
    Vectors,
    choose_cpu,
    cosines,
)
from .errors import ComparisonError
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

StateDict = Mapping[str, Tensor]

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Attention heads of ViT-B, L, H, g and bigG, by width.
_HEADS = {768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}
# Widths of OpenAI's image and text encoders, which use QuickGELU.
_QUICK_GELU_WIDTHS, _QUICK_GELU_TEXT_WIDTHS = (768, 1024), (512, 768)


@dataclass(frozen=True)
class ClipImageEncoder:
    """CLIP's image encoder; the similarity is the cosine, DreamBooth's CLIP-I.

    `load` returns the model.
    """

    name: str
    digest: str
    load: Callable[[], VisionModel]
    key: str = "clip"
    identity_only: bool = False

    def encode(self, images: Sequence[Image.Image]) -> Vectors:
        """Unit vectors (n, projection). Raises ComparisonError."""
        model, preprocessing = self.load()
        return unit_vectors(
            model, preprocessing, images, lambda seen: model(pixel_values=seen).image_embeds
        )

    def likeness(self, a: Vectors, b: Vectors) -> Values:
        """Cosines (n, m)."""
        return cosines(a, b)


@dataclass(frozen=True)
class Clip:
    """Both of CLIP's encoders; the prompt match is the cosine of image and text, CLIP-T."""

    image_encoder: ClipImageEncoder
    text: Any
    tokenizer: CLIPTokenizer
    name: str
    key: str = "clip"
    identity_only: bool = False

    @property
    def digest(self) -> str:
        """That of the image encoder: text vectors are not cached."""
        return self.image_encoder.digest

    def encode(self, images: Sequence[Image.Image]) -> Vectors:
        """As `ClipImageEncoder.encode`."""
        return self.image_encoder.encode(images)

    def likeness(self, a: Vectors, b: Vectors) -> Values:
        """Cosines (n, m)."""
        return cosines(a, b)

    @torch.no_grad()
    def prompt_match(self, vectors: Vectors, prompts: Sequence[str]) -> Values:
        """The cosine (n,) of each vector and its prompt, truncated to 77 tokens."""
        unique = sorted(set(prompts))
        ids = tokenize(self.tokenizer, unique).to(next(self.text.parameters()).device)
        embeds = F.normalize(self.text(input_ids=ids).text_embeds.float(), dim=-1).cpu().numpy()
        texts = embeds[[unique.index(prompt) for prompt in prompts]]
        return np.asarray((vectors * texts).sum(1), np.float64)


def load_clip(
    files: EncoderFiles, device: ChooseDevice = choose_cpu
) -> ClipImageEncoder | PromptEncoder:
    """Loads CLIP from `files`, with its text encoder if given or found with the image encoder.

    Raises ComparisonError for files that are damaged, of another kind, or not from the same CLIP.
    Faults that only show when the image encoder is loaded are raised on its first use.
    """
    path = files.clip_image
    if path is None:
        raise ComparisonError("No CLIP image encoder is given.")
    with wrap_load_errors(f"The image encoder {path.name}"):
        projection_dim = _projection_dim(path)
        digest = weights_digest([path], files.cache)
    lazy_load = lazy_loader(partial(_load_image_encoder, path), weights_size(path), device)
    image_encoder = ClipImageEncoder(f"CLIP ({path.name})", digest, lazy_load)
    text_path = files.clip_text or (path if _has_text(path) else None)
    if text_path is None:
        return image_encoder
    model, tokenizer = _load_text_encoder(text_path, files.tokenizers)
    _check_pair(projection_dim, model.config.projection_dim, path, text_path)
    names = dict.fromkeys((path.name, text_path.name))
    size = 4 * sum(weight.numel() for weight in model.parameters())
    text = model.eval().to(device(size))
    return Clip(image_encoder, text, tokenizer, f"CLIP ({', '.join(names)})")


def _load_image_encoder(path: Path) -> VisionModel:
    """Raises ComparisonError."""
    with wrap_load_errors(f"The image encoder {path.name}"):
        if path.is_dir():
            return _from_folder(CLIPVisionModelWithProjection, path), _preprocessing(path)
        return _build_vision_model(_read_state_dict(path))


def _projection_dim(path: Path) -> int:
    """Width of an image encoder's output. Raises KeyError, ValueError or LikenessError."""
    if path.is_dir():
        config = _config(CLIPVisionModelWithProjection, path)
        part = config.get("vision_config", config)
        return int(part.get("projection_dim", CLIPVisionConfig().projection_dim))
    return int(_read_state_dict(path)["visual_projection.weight"].shape[0])


def _load_text_encoder(path: Path, tokenizers: Sequence[Path]) -> tuple[Any, CLIPTokenizer]:
    with wrap_load_errors(f"The text encoder {path.name}"):
        if path.is_dir():
            model = _from_folder(CLIPTextModelWithProjection, path)
        else:
            model = _build_text_model(_read_state_dict(path))
        vocabulary = model.config.vocab_size
        for folder in find_tokenizers(path, [path, *tokenizers]):
            tokenizer = load_tokenizer(folder)
            if len(tokenizer) == vocabulary:
                return model, tokenizer
        raise ValueError(f"no tokenizer with its {vocabulary:,} entries was found")


def _check_pair(projection_dim: int, other: int, path: Path, text_path: Path) -> None:
    if projection_dim != other:
        raise ComparisonError(
            f"{path.name} has image embeddings of width {projection_dim}, {text_path.name} text "
            f"embeddings of width {other}: they are not the same CLIP. Choose a matching pair."
        )


def _has_text(path: Path) -> bool:
    if path.is_dir():
        return read_config(path / "config.json").get("model_type") == "clip"
    return "text_projection.weight" in _read_state_dict(path)


def _read_state_dict(path: Path) -> StateDict:
    return transformers_names(read_weights(path))


def _from_folder(kind: Any, path: Path) -> Any:
    _config(kind, path)
    return load_pretrained(kind, path)


def _config(kind: Any, path: Path) -> dict[str, Any]:
    """A folder's config.json. Raises ValueError unless it is CLIP's."""
    config = read_config(path / "config.json")
    if config.get("model_type") not in ("clip", kind.config_class.model_type):
        raise ValueError("its config.json is not CLIP's")
    return config


def _preprocessing(path: Path) -> Preprocessing:
    config = read_config(path / "config.json")
    size = config.get("vision_config", config).get("image_size", 224)
    return read_preprocessing(path, Preprocessing(size, size, MEAN, STD))


def _build_vision_model(state: StateDict) -> tuple[CLIPVisionModelWithProjection, Preprocessing]:
    """An image encoder from transformers' names. Raises KeyError with the missing name."""
    width, _, patch, _ = state["vision_model.embeddings.patch_embedding.weight"].shape
    positions = state["vision_model.embeddings.position_embedding.weight"].shape[0]
    size = patch * int((positions - 1) ** 0.5)
    layer = "vision_model.encoder.layers.{}.mlp.fc1.weight"
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=state[layer.format(0)].shape[0],
        num_hidden_layers=sum(layer.format(n) in state for n in range(len(state))),
        num_attention_heads=_num_heads(width),
        image_size=size,
        patch_size=patch,
        projection_dim=state["visual_projection.weight"].shape[0],
        hidden_act="quick_gelu" if width in _QUICK_GELU_WIDTHS else "gelu",
    )
    model = _load_weights(CLIPVisionModelWithProjection(config), state)
    return model, Preprocessing(size, size, MEAN, STD)


def _num_heads(width: int) -> int:
    """Raises ValueError for a large unknown encoder: a wrong number changes its vectors."""
    if width not in _HEADS and width > min(_HEADS):
        raise ValueError(
            f"image encoders of width {width} are not known: use its transformers folder"
        )
    return _HEADS.get(width, max(1, width // 64))


def _build_text_model(state: StateDict) -> CLIPTextModelWithProjection:
    """A text encoder from transformers' names. Raises KeyError with the missing name."""
    state = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    shapes = {name.removeprefix("text_model."): tuple(t.shape) for name, t in state.items()}
    config = text_config(shapes) | {"projection_dim": shapes["text_projection.weight"][0]}
    config["hidden_act"] = (
        "quick_gelu" if config["hidden_size"] in _QUICK_GELU_TEXT_WIDTHS else "gelu"
    )
    return _load_weights(CLIPTextModelWithProjection(CLIPTextConfig(**config)), state)


def _load_weights(model: Any, state: StateDict) -> Any:
    """Returns `model` with its weights set from `state`, in fp32."""
    wanted = model.state_dict()
    model.load_state_dict(
        {name: state[name].float() for name in wanted if "position_ids" not in name}, strict=False
    )
    return model
