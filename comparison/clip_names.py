"""Renames CLIP's tensors from OpenAI's and open_clip's names to transformers'."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_IMAGE = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
_TEXT = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)")
IMAGE_PROJECTION, TEXT_PROJECTION = "visual.proj", "text_projection"  # (width, projection)


def transformers_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under transformers' names; unknown names are kept."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        renamed |= _renamed(name, tensor)
    return renamed


def _renamed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    if name == IMAGE_PROJECTION:
        return {"visual_projection.weight": tensor.t()}
    if name == TEXT_PROJECTION:
        return {"text_projection.weight": tensor.t()}
    plain = name.removeprefix("visual.")
    part, table = ("text_model.", _TEXT) if plain == name else ("vision_model.", _IMAGE)
    if plain in table:
        return {part + table[plain]: tensor}
    if match := _BLOCK.fullmatch(plain):
        number, layer, kind = match.groups()
        return _rename_layer(f"{part}encoder.layers.{number}.", layer, kind, tensor)
    return {name: tensor}


def _rename_layer(prefix: str, layer: str, kind: str, tensor: Tensor) -> dict[str, Tensor]:
    if layer == "attn.in_proj":  # query, key and value, stacked along dim 0
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{prefix}self_attn.{one}_proj.{kind}": rows for one, rows in parts}
    return {f"{prefix}{_LAYER.get(layer, layer)}.{kind}": tensor}
