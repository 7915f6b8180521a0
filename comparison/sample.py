"""Draws images with diffusers from a base, an adapter, prompts and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..trainers.adapter import load_adapter, trained_prediction
from ..trainers.base_file import is_full_fine_tune
from ..trainers.base_model import BaseModel, load_base
from ..trainers.cpu import prepare_for_cpu
from ..trainers.gpu_capabilities import has_fp16
from ..trainers.lora_merge import merge
from ..trainers.sampler import ControlNet, calculate_sigmas, decode, prepare_noise, sample
from ..trainers.text_encoding import encode_text, tokenize
from .blend import blend

_MAX_TOKENS = 300  # of a prompt; ComfyUI has no limit


def load_with_adapter(
    base: Path,
    adapter: Path | None,
    *,
    tokenizers: Sequence[Path] = (),
    strength: float = 1.0,
    strength_text: float | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> BaseModel:
    """The base with a LoRA merged in, or interpolated towards a full fine-tune.

    `strength_text` applies to the text encoder; None: same as `strength`. The VAE is always the
    base's, as with Load Adapter in ComfyUI. The prediction type is the adapter's if it declares one
    and either strength is non-zero. Raises BaseModelError or AdapterError.
    """
    model = load_base(base, tokenizers, dtype=dtype, device=device)
    if device == "cpu":
        prepare_for_cpu(model.unet)
    strengths = (strength, strength if strength_text is None else strength_text)
    if adapter is None:
        return model
    if is_full_fine_tune(adapter):
        blend(model, adapter, *strengths)
    else:
        merge(model.unet, model.text_encoder, load_adapter(adapter), *strengths)
    if any(strengths):
        model.prediction = trained_prediction(adapter) or model.prediction
    return model


def inference_dtype(device: str) -> torch.dtype:
    """The dtype for inference: fp16 on a GPU that supports it, else fp32."""
    return torch.float16 if has_fp16(torch.device(device)) else torch.float32


@torch.no_grad()
def draw(
    model: BaseModel,
    prompts: Sequence[str],
    *,
    negative: str = "",
    width: int = 512,
    height: int = 512,
    steps: int = 35,
    guidance: float = 7.5,
    seed: int = 0,
    clip_skip: int = 1,
    control: ControlNet | None = None,
) -> list[np.ndarray]:
    """One image (height, width, 3) uint8 for each prompt, all from the same noise.

    `clip_skip` is as in a recipe's text encoder. `control`, if given, applies to all of them.
    """
    device = model.unet.device
    noise = prepare_noise([seed], height, width)
    images = []
    for prompt in prompts:
        ids = tokenize(model.tokenizer, [prompt, negative], _MAX_TOKENS).to(device)
        context = encode_text(model.text_encoder, ids, clip_skip)  # (2, 77 k, d)
        latents = sample(
            model.unet,
            context[:1],
            context[1:],
            noise.to(device),
            sigmas=calculate_sigmas(steps),
            guidance=guidance,
            prediction=model.prediction,
            control=control,
        )
        images.append(decode(model.vae, latents)[0])
    return images
