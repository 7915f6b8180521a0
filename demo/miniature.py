"""The miniature's architecture: a Stable Diffusion 1.x of a few megabytes, and its ControlNet.

Every part has a layout that ComfyUI and diffusers can load. Hyperparameters that cannot be inferred
from shapes (8 heads, 32 groups, head size 64 in the text encoder) are those of SD 1.x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from ..trainers import ldm_names
from ..trainers.single_file import save_single_file
from ..trainers.weights import read_weights, write_weights
from .tokenizer import LENGTH, vocabulary, write_tokenizer
from .words import NONSENSE, TOKEN, WORDS

CONTEXT = 128  # width of text embeddings and of cross-attention's context

UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    # ComfyUI's UNet requires multiples of the first width.
    "block_out_channels": (64, 128),
    "layers_per_block": 2,
    # No attention at the top level (16x16 latents), which is most of the cost already.
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": CONTEXT,
    "attention_head_dim": 8,  # SD 1.x's name for the number of heads
    "norm_num_groups": 32,
}
CONTROLNET: dict[str, Any] = {
    **{key: UNET[key] for key in UNET if key not in ("sample_size", "out_channels")},
    # Hard-coded in ComfyUI's ControlNet.
    "conditioning_embedding_out_channels": (16, 32, 96, 256),
}
CONTROLNET.pop("up_block_types")
TAESD_CHANNELS = 64


def new_unet() -> UNet2DConditionModel:
    """The UNet with random weights, 5.8 M parameters."""
    return UNet2DConditionModel(**UNET)


def new_vae(outer: int = TAESD_CHANNELS, inner: int | None = None) -> AutoencoderTiny:
    """A VAE with TAESD's layout (4 latent channels, 1/8 of the size), which ComfyUI can load.

    Its latents are trained to unit variance, so scaling_factor is 1. `outer` is the width at full
    and half resolution, which dominate the cost; `inner` (None: as `outer`) is the width at 1/4 and
    1/8. Other programs expect 64 everywhere: see `widened`.
    """
    vae = AutoencoderTiny()
    inner = outer if inner is None else inner
    _set_widths(vae.encoder.layers, [outer] * 6 + [inner] * 8 + [vae.config.latent_channels])
    _set_widths(vae.decoder.layers, [inner] * 11 + [outer] * 7 + [vae.config.out_channels])
    return vae


def _set_widths(layers: torch.nn.Sequential, widths: Sequence[int]) -> None:
    """Sets the output width of each layer's convolutions, with new random weights."""
    before = next(m for m in layers.modules() if isinstance(m, torch.nn.Conv2d)).in_channels
    for layer, width in zip(layers, widths, strict=True):
        for conv in layer.modules():
            if isinstance(conv, torch.nn.Conv2d):
                conv.in_channels, conv.out_channels, before = before, width, width
                shape = (width, conv.in_channels, *conv.kernel_size)
                conv.weight = torch.nn.Parameter(torch.empty(shape))
                if conv.bias is not None:
                    conv.bias = torch.nn.Parameter(torch.empty(width))
                conv.reset_parameters()


@torch.no_grad()
def widened(vae: AutoencoderTiny) -> AutoencoderTiny:
    """An equivalent VAE with TAESD's 64 channels; the added channels are zero.

    Training with fewer channels is several times faster on a CPU.
    """
    wide, state = new_vae(), vae.state_dict()
    for name, weights in wide.state_dict().items():
        kept = tuple(slice(length) for length in state[name].shape)
        weights.zero_()[kept] = state[name]
    return wide.to(vae.device, vae.dtype)  # type: ignore[arg-type]  # diffusers wraps `to`


def new_text_encoder() -> CLIPTextModel:
    """A CLIP text encoder with two layers for the vocabulary of `words`."""
    size = len(vocabulary()[0])
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=size,
            hidden_size=CONTEXT,
            projection_dim=CONTEXT,
            intermediate_size=4 * CONTEXT,
            num_hidden_layers=2,
            num_attention_heads=CONTEXT // 64,
            max_position_embeddings=LENGTH,
            hidden_act="quick_gelu",
            bos_token_id=size - 2,
            eos_token_id=size - 1,
            pad_token_id=size - 1,
        )
    )


@torch.no_grad()
def settle_unseen(text_encoder: CLIPTextModel) -> None:
    """Sets embeddings of tokens that no caption has to the mean of the nonsense words' embeddings.

    Their initial values are noise that the model has never seen; afterwards they are words without
    a meaning yet. The rare token is the most important of them.
    """
    rows = text_encoder.get_input_embeddings().get_parameter("weight")
    spoken = [WORDS.index(word) for word in WORDS if word != TOKEN]
    unseen = torch.ones(len(rows), dtype=torch.bool)
    unseen[[*spoken, len(rows) - 2, len(rows) - 1]] = False  # nor the start and end tokens
    rows[unseen] = rows[[WORDS.index(word) for word in NONSENSE]].mean(0)


def new_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet initialised from the UNet's encoder, a no-op at first (arXiv:2302.05543)."""
    controlnet = ControlNetModel(**CONTROLNET)
    shared = controlnet.state_dict().keys() & unet.state_dict().keys()
    controlnet.load_state_dict({key: unet.state_dict()[key] for key in shared}, strict=False)
    return controlnet


def control(
    controlnet: ControlNetModel, hints: Tensor, strength: float = 1.0
) -> Callable[..., Any]:
    """The residual function for `sampler.sample`, for hints (n, 3, h, w) from 0 to 1."""

    def residuals(x: Tensor, timestep: Tensor, states: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        times = len(x) // len(hints)  # 2 with guidance
        given = torch.cat([hints] * times).to(x)
        down, middle = controlnet(
            x, timestep, states, given, conditioning_scale=strength, return_dict=False
        )
        return down, middle

    return residuals


def save_miniature(
    path: Path,
    *,
    unet: UNet2DConditionModel,
    vae: AutoencoderTiny,
    text_encoder: CLIPTextModel,
    metadata: Mapping[str, str],
) -> None:
    """Writes the checkpoint in fp16, and its tokenizer to ``<stem>_tokenizer/`` beside it.

    Raises what `save_single_file` raises.
    """
    save_single_file(
        path, unet=unet, vae=vae, text_encoder=text_encoder, dtype="fp16", metadata=metadata
    )
    write_tokenizer(path.with_name(f"{path.stem}_tokenizer"))


def save_controlnet(path: Path, controlnet: ControlNetModel, metadata: Mapping[str, str]) -> None:
    """Writes the ControlNet in fp16 with the LDM names that ComfyUI's ControlNetLoader reads."""
    names = ldm_names.controlnet_names(CONTROLNET)
    state = ldm_names.to_ldm(controlnet.state_dict(), names, ldm_names.CONTROL)
    write_weights(path, state, torch.float16, metadata)


def load_controlnet(path: Path) -> ControlNetModel:
    """Loads a ControlNet written by `save_controlnet`, in fp32 and evaluation mode.

    Raises:
        BaseModelError: the file is damaged.
    """
    state = ldm_names.part(read_weights(path), ldm_names.CONTROL)
    renamed, _ = ldm_names.from_ldm(state, ldm_names.controlnet_names(CONTROLNET))
    controlnet = ControlNetModel(**CONTROLNET)
    controlnet.load_state_dict({key: value.float() for key, value in renamed.items()})
    return controlnet.eval()
