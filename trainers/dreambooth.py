"""DreamBooth (Ruiz et al. 2023): trains all weights of the UNet and optionally the text encoder."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch.nn import Parameter
from transformers import CLIPTextModel


def attach(unet: UNet2DConditionModel, text_encoder: CLIPTextModel | None) -> None:
    """Makes every weight trainable; without `text_encoder` it stays frozen.

    A 16-bit weight of magnitude 0.03 keeps 25 % (fp16) or 2 % (bf16) of coherent updates of 2e-6,
    so only the computation may be 16-bit: raises ValueError for weights that are not fp32.
    """
    for module in (unet, text_encoder):
        if module is None:
            continue
        if module.dtype != torch.float32:
            raise ValueError(f"trained weights must be fp32, not {module.dtype}")
        module.requires_grad_(True)


def trainable_parameters(
    unet: UNet2DConditionModel, text_encoder: CLIPTextModel | None
) -> dict[str, Parameter]:
    """All weights, by names independent of library versions: ``unet.…``, ``text_encoder.…``.

    transformers 5 dropped ``text_model.`` from the text encoder's, so it is always removed.
    """
    named = {f"unet.{name}": p for name, p in unet.named_parameters()}
    if text_encoder is not None:
        text = text_encoder.named_parameters()
        named |= {f"text_encoder.{name.removeprefix('text_model.')}": p for name, p in text}
    return named
