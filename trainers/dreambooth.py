"""DreamBooth (Ruiz et al. 2023): all weights of the UNet, and of the text encoder if asked."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch.nn import Parameter
from transformers import CLIPTextModel


def attach(unet: UNet2DConditionModel, text_encoder: CLIPTextModel | None) -> None:
    """Makes every weight trainable, in fp32.

    A 16-bit weight of scale 0.03 keeps 25 % (fp16) or 2 % (bf16) of coherent updates of 2e-6,
    so weights are held in fp32 and only the computation is 16-bit. `text_encoder` None: frozen.
    """
    for module in (unet, text_encoder):
        if module is not None:
            module.to(torch.float32).requires_grad_(True)


def trainable(
    unet: UNet2DConditionModel, text_encoder: CLIPTextModel | None
) -> dict[str, Parameter]:
    """All weights by stable names, prefixed `unet.` or `text_encoder.`."""
    named = {f"unet.{name}": p for name, p in unet.named_parameters()}
    if text_encoder is not None:
        named |= {f"text_encoder.{name}": p for name, p in text_encoder.named_parameters()}
    return named
