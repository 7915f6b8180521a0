"""Maps diffusers' tensor names to those of a single-file checkpoint (LDM), and back.

A table maps diffusers' module names to those of the original latent-diffusion code
(github.com/CompVis/latent-diffusion), without the prefix of the part. It is built from the same
keyword arguments as the diffusers model, and those are inferred from the shapes in a file, so that
loading inverts saving. Works on torch and numpy tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from .safetensors_file import Shapes

UNET = "model.diffusion_model."
VAE = "first_stage_model."
TEXT = "cond_stage_model.transformer.text_model."
CONTROL = "control_model."

NameMap = dict[str, str]  # diffusers module -> LDM module

LATENT_SCALE = 0.18215  # of SD 1.x's latents, arXiv:2112.10752

_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {
    "conv_shortcut": "nin_shortcut"
}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
# LDM's VAE attends with 1x1 convolutions (out, in, 1, 1), diffusers with linear layers (out, in).
_POINTWISE = re.compile(r"\.attn_1\.(q|k|v|proj_out)\.weight$")


# Tables.


def unet_names(config: Mapping[str, Any]) -> NameMap:
    """Table of a UNet2DConditionModel with these keyword arguments; any number of levels."""
    layers = config["layers_per_block"]
    last = len(config["block_out_channels"]) - 1
    names = _encoder_names(config)
    block = 0
    for level, kind in enumerate(config["up_block_types"]):
        attends = "CrossAttn" in kind
        for layer in range(layers + 1):
            theirs = f"output_blocks.{block}"
            names |= _prefixed(f"up_blocks.{level}.resnets.{layer}", f"{theirs}.0", _UNET_RESNET)
            if attends:
                names[f"up_blocks.{level}.attentions.{layer}"] = f"{theirs}.1"
            if layer == layers and level < last:
                place = 2 if attends else 1
                names[f"up_blocks.{level}.upsamplers.0.conv"] = f"{theirs}.{place}.conv"
            block += 1
    return names | {"conv_norm_out": "out.0", "conv_out": "out.2"}


def controlnet_names(config: Mapping[str, Any]) -> NameMap:
    """Table of a ControlNetModel with these keyword arguments (prefix ``control_model.``)."""
    names = _encoder_names(config)
    outputs = len(config["block_out_channels"]) * (config["layers_per_block"] + 1)
    names |= {f"controlnet_down_blocks.{n}": f"zero_convs.{n}.0" for n in range(outputs)}
    hints = 2 * (len(config["conditioning_embedding_out_channels"]) - 1)
    ours = ["conv_in", *(f"blocks.{n}" for n in range(hints)), "conv_out"]
    names |= {
        f"controlnet_cond_embedding.{o}": f"input_hint_block.{2 * n}" for n, o in enumerate(ours)
    }
    return names | {"controlnet_mid_block": "middle_block_out.0"}


def vae_names(config: Mapping[str, Any]) -> NameMap:
    """Table of an AutoencoderKL with these keyword arguments."""
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    names = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for half in ("encoder", "decoder"):
        names |= {f"{half}.{name}": f"{half}.{name}" for name in ("conv_in", "conv_out")}
        names[f"{half}.conv_norm_out"] = f"{half}.norm_out"
        for n in (0, 1):
            names |= _prefixed(
                f"{half}.mid_block.resnets.{n}", f"{half}.mid.block_{n + 1}", _VAE_RESNET
            )
        names |= _prefixed(f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1", _VAE_ATTENTION)
    for level in range(levels):
        # LDM counts the decoder's levels from the highest resolution, diffusers from the lowest.
        ours, theirs = f"encoder.down_blocks.{level}", f"encoder.down.{level}"
        ours_up, theirs_up = f"decoder.up_blocks.{level}", f"decoder.up.{levels - 1 - level}"
        for n in range(layers):
            names |= _prefixed(f"{ours}.resnets.{n}", f"{theirs}.block.{n}", _VAE_RESNET)
        for n in range(layers + 1):
            names |= _prefixed(f"{ours_up}.resnets.{n}", f"{theirs_up}.block.{n}", _VAE_RESNET)
        if level < levels - 1:
            names[f"{ours}.downsamplers.0.conv"] = f"{theirs}.downsample.conv"
            names[f"{ours_up}.upsamplers.0.conv"] = f"{theirs_up}.upsample.conv"
    return names


def tiny_vae_names(config: Mapping[str, Any]) -> NameMap:
    """Table of an AutoencoderTiny: TAESD's names as ComfyUI stores them beneath the VAE's prefix.

    TAESD's decoder counts its clamp as layer 0; diffusers has the clamp outside the list.
    """
    encoder = sum(config["num_encoder_blocks"]) + len(config["num_encoder_blocks"]) + 1
    decoder = sum(config["num_decoder_blocks"]) + 2 * len(config["num_decoder_blocks"]) + 1
    return {f"encoder.layers.{n}": f"taesd_encoder.{n}" for n in range(encoder)} | {
        f"decoder.layers.{n}": f"taesd_decoder.{n + 1}" for n in range(decoder)
    }


def text_names(keys: Mapping[str, Any]) -> NameMap:
    """Table of a CLIPTextModel whose own names are `keys`.

    transformers before 5 prefixes them with ``text_model.``, later versions do not.
    """
    own = "text_model." if any(key.startswith("text_model.") for key in keys) else ""
    return {own + part: part for part in ("embeddings", "encoder", "final_layer_norm")}


def _encoder_names(config: Mapping[str, Any]) -> NameMap:
    """The half that UNet and ControlNet share: time embedding, down blocks, middle."""
    layers = config["layers_per_block"]
    names = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "mid_block.attentions.0": "middle_block.1",
        **_prefixed("mid_block.resnets.0", "middle_block.0", _UNET_RESNET),
        **_prefixed("mid_block.resnets.1", "middle_block.2", _UNET_RESNET),
    }
    for level, kind in enumerate(config["down_block_types"]):
        first = 1 + level * (layers + 1)
        for layer in range(layers):
            ours, theirs = f"down_blocks.{level}", f"input_blocks.{first + layer}"
            names |= _prefixed(f"{ours}.resnets.{layer}", f"{theirs}.0", _UNET_RESNET)
            if "CrossAttn" in kind:
                names[f"{ours}.attentions.{layer}"] = f"{theirs}.1"
        names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{first + layers}.0.op"
    return names


def _prefixed(ours: str, theirs: str, parts: NameMap) -> NameMap:
    return {f"{ours}.{a}": f"{theirs}.{b}" for a, b in parts.items()}


# Renaming.


def to_ldm(state: Mapping[str, Any], names: NameMap, prefix: str) -> dict[str, Any]:
    """`state` under LDM names with `prefix`. Raises KeyError for a tensor not in the table."""
    renamed = {}
    for key, tensor in state.items():
        name = lookup(key, names)
        if name is None:
            raise KeyError(key)
        if _POINTWISE.search(name):
            tensor = tensor[:, :, None, None]  # (out, in) -> (out, in, 1, 1)
        renamed[prefix + name] = tensor
    return renamed


def from_ldm(state: Mapping[str, Any], names: NameMap) -> tuple[dict[str, Any], list[str]]:
    """`state` (one part, see `part`) under diffusers' names, and the keys not in the table."""
    back = {theirs: ours for ours, theirs in names.items()}
    renamed, unknown = {}, []
    for key, tensor in state.items():
        name = lookup(key, back)
        if name is None:
            unknown.append(key)
            continue
        if _POINTWISE.search(key) and tensor.ndim == 4:
            tensor = tensor[:, :, 0, 0]  # (out, in, 1, 1) -> (out, in)
        renamed[name] = tensor
    return renamed, unknown


def part(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The tensors under `prefix`, without it. The text encoder may lack ``text_model.``."""
    found = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    if not found and prefix == TEXT:
        return part(state, TEXT.removesuffix("text_model."))
    return found


def lookup(key: str, modules: NameMap) -> str | None:
    """`key` with its longest leading module found in the table renamed, or None."""
    head = key
    while head:
        if head in modules:
            return modules[head] + key[len(head) :]
        head = head.rpartition(".")[0]
    return None


# Keyword arguments of the diffusers models, inferred from shapes.


def unet_config(shapes: Shapes) -> dict[str, Any]:
    """Keyword arguments of UNet2DConditionModel. Raises KeyError naming a missing tensor.

    SD 1.x attends with 8 heads at every width (diffusers calls that ``attention_head_dim``) and
    normalises in 32 groups; neither can be inferred from a shape.
    """
    widths, attends, layers = _levels(shapes)
    depth = "middle_block.1.transformer_blocks.{}.norm1.weight"
    context = shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1]
    return {
        "sample_size": 64,
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": tuple(widths),
        "layers_per_block": layers,
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]),
        "transformer_layers_per_block": _count(shapes, depth),
        "cross_attention_dim": context,
        "attention_head_dim": 8,
        "norm_num_groups": 32,
        "use_linear_projection": len(shapes["middle_block.1.proj_in.weight"]) == 2,
    }


def _levels(shapes: Shapes) -> tuple[list[int], list[bool], int]:
    """Each level's width and whether it has attention, and the residual blocks per level."""
    widths, attends, layers, block = [], [], 0, 1
    while f"input_blocks.{block}.0.in_layers.2.weight" in shapes:
        widths.append(shapes[f"input_blocks.{block}.0.in_layers.2.weight"][0])
        attends.append(f"input_blocks.{block}.1.proj_in.weight" in shapes)
        while f"input_blocks.{block}.0.in_layers.2.weight" in shapes:
            block += 1
        layers = layers or block - 1
        block += 1  # the level's downsampling
    return widths, attends, layers


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """Keyword arguments of AutoencoderKL. Raises KeyError naming a missing tensor."""
    levels = _count(shapes, "encoder.down.{}.block.0.conv1.weight")
    return {
        "sample_size": 512,
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "block_out_channels": tuple(
            shapes[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in range(levels)
        ),
        "layers_per_block": _count(shapes, "encoder.down.0.block.{}.conv1.weight"),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "latent_channels": shapes["post_quant_conv.weight"][0],
        "norm_num_groups": 32,
        "scaling_factor": LATENT_SCALE,
    }


def tiny_vae_config(shapes: Shapes) -> dict[str, Any]:
    """Keyword arguments of AutoencoderTiny. Raises KeyError naming a missing tensor.

    A plain convolution opens each level of the encoder and closes each of the decoder.
    """
    encoder = _blocks_between_convolutions(shapes, "taesd_encoder")
    decoder = _blocks_between_convolutions(shapes, "taesd_decoder")
    return {
        "in_channels": shapes["taesd_encoder.0.weight"][1],
        "latent_channels": shapes["taesd_decoder.1.weight"][1],
        "encoder_block_out_channels": (shapes["taesd_encoder.0.weight"][0],) * len(encoder),
        "decoder_block_out_channels": (shapes["taesd_decoder.1.weight"][0],) * len(decoder),
        "num_encoder_blocks": tuple(encoder),
        "num_decoder_blocks": tuple(decoder),
    }


def _blocks_between_convolutions(shapes: Shapes, half: str) -> list[int]:
    layers = range(len(shapes))
    plain = [n for n in layers if f"{half}.{n}.weight" in shapes]
    blocks = [n for n in layers if f"{half}.{n}.conv.0.weight" in shapes]
    return [sum(a < n < b for n in blocks) for a, b in pairwise(plain)]


def text_config(shapes: Shapes) -> dict[str, Any]:
    """Keyword arguments of CLIPTextConfig. Raises KeyError naming a missing tensor.

    Heads are 64 wide, as in every CLIP text encoder, and at least one; the last two tokens of
    the vocabulary are BOS and EOS.
    """
    vocabulary, hidden = shapes["embeddings.token_embedding.weight"]
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "projection_dim": hidden,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, "encoder.layers.{}.mlp.fc1.weight"),
        "num_attention_heads": max(1, hidden // 64),
        "max_position_embeddings": shapes["embeddings.position_embedding.weight"][0],
        "hidden_act": "quick_gelu",
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }


def _count(shapes: Shapes, pattern: str) -> int:
    number = 0
    while pattern.format(number) in shapes:
        number += 1
    return number
