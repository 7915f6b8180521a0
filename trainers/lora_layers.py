"""The layers of an SD 1.x model that a LoRA may change, by the names that files have for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import ldm_names
from .adapter_names import (
    COMFYUI_PREFIX_TEXT_ENCODER,
    COMFYUI_PREFIX_UNET,
    LORA_PREFIX_UNET,
    module_name,
)
from .base_file import read_shapes
from .safetensors_file import Shapes

if TYPE_CHECKING:
    from torch import nn

    from .base_model import BaseModel

# Target modules by path suffix, of the UNet and of the text encoder. `linear` is what kohya's
# scripts call LierLa (every layer of the transformer blocks), `all` their LoCon (also every layer
# of the residual blocks and samplers).
_UNET_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_UNET_LINEAR = [*_UNET_ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
_UNET_SAMPLERS = ["downsamplers.0.conv", "upsamplers.0.conv"]
_UNET_ALL = [*_UNET_LINEAR, "conv1", "conv2", "conv_shortcut", "time_emb_proj", *_UNET_SAMPLERS]
_TEXT_ATTENTION = ["q_proj", "k_proj", "v_proj", "out_proj"]
_TEXT_LINEAR = [*_TEXT_ATTENTION, "fc1", "fc2"]
TARGETS = {
    "attention": (_UNET_ATTENTION, _TEXT_ATTENTION),
    "linear": (_UNET_LINEAR, _TEXT_LINEAR),
    "all": (_UNET_ALL, _TEXT_LINEAR),
}


@dataclass(frozen=True)
class Layer:
    """A module with a weight: its part, path in diffusers' model, kohya's name, weight's shape."""

    part: Literal["unet", "text_encoder"]
    path: str
    name: str
    shape: tuple[int, ...]

    def is_target(self, targets: str) -> bool:
        """Whether a LoRA of these `method.targets` trains it."""
        suffixes = TARGETS[targets][self.part == "text_encoder"]
        return f".{self.path}".endswith(tuple(f".{suffix}" for suffix in suffixes))


def file_names(part: str, path: str, table: ldm_names.NameMap) -> Iterator[str]:
    """The names that files have for the module at `path` of a part, kohya's first.

    `table` is the UNet's (`ldm_names.unet_names`).
    """
    yield module_name(part, path)
    if part == "text_encoder":
        yield f"{COMFYUI_PREFIX_TEXT_ENCODER}text_model.{path.removeprefix('text_model.')}"
    elif theirs := ldm_names.lookup(path, table):
        yield COMFYUI_PREFIX_UNET + theirs
        yield LORA_PREFIX_UNET + theirs.replace(".", "_")


def layers_of(base: BaseModel) -> dict[str, Layer]:
    """The layers of a loaded base, without adapters, under each name that a file may have."""
    table = ldm_names.unet_names(base.unet.config)
    return _layers(_shapes(base.unet), _shapes(base.text_encoder), table)


def read_layers(base: Path) -> dict[str, Layer] | None:
    """As `layers_of`, from the header of a base's safetensors file.

    None for a diffusers folder, a pickle, and an incomplete file. Raises BaseModelError.
    """
    if base.is_dir() or base.suffix.lower() != ".safetensors":
        return None
    shapes = read_shapes(base)
    unet = ldm_names.part(shapes, ldm_names.UNET)
    try:
        table = ldm_names.unet_names(ldm_names.unet_config(unet))
    except KeyError:
        return None
    renamed, _ = ldm_names.from_ldm(unet, table)
    return _layers(renamed, ldm_names.part(shapes, ldm_names.TEXT), table)


def _layers(unet: Shapes, text: Shapes, table: ldm_names.NameMap) -> dict[str, Layer]:
    found: dict[str, Layer] = {}
    parts: tuple[tuple[Literal["unet", "text_encoder"], Shapes], ...]
    parts = (("unet", unet), ("text_encoder", text))
    for part, shapes in parts:
        for name, shape in shapes.items():
            path, _, kind = name.rpartition(".")
            if kind == "weight":
                path = path.removeprefix("text_model.")  # of transformers before 5
                layer = Layer(part, path, module_name(part, path), tuple(shape))
                found |= dict.fromkeys(file_names(part, path, table), layer)
    return found


def _shapes(model: nn.Module) -> dict[str, Any]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
