"""Small models of random weights that several tests compute with.

Run by path (`runpy`), because tests are no package.
"""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from likeness.trainers import lora
from likeness.trainers.adapter import save_adapter
from likeness.trainers.adapter_metadata import build_metadata
from likeness.trainers.base_model import load_base
from likeness.trainers.recipe import LoRA, Recipe
from transformers import CLIPTextConfig, CLIPTextModel


def tiny() -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """The same small UNet and text encoder at every call."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    text = CLIPTextConfig(
        vocab_size=20,
        hidden_size=12,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
    )
    return unet, CLIPTextModel(text)


def attached(
    method: LoRA, seed: int = 1, noise: float = 0.0
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Those of `tiny` with adapters, moved from their start by `noise`."""
    unet, text = tiny()
    lora.attach(unet, text, method, seed)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in lora.trainable_parameters(unet, text).values():
            parameter += noise * torch.randn(parameter.shape, generator=generator)
    return unet, text


def small_unet() -> UNet2DConditionModel:
    """The same UNet of two levels at every call, for text of width 16."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=8,
        norm_num_groups=8,
    ).eval()


def write_random_lora(base: Path, path: Path) -> Path:
    """Writes a LoRA of random weights for a base, large enough to show."""
    method, model = LoRA(rank=4), load_base(base)
    parts = model.unet, model.text_encoder
    lora.attach(*parts, method, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in lora.trainable_parameters(*parts).values():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    metadata = build_metadata(Recipe(method=method), steps=1, losses=[])
    save_adapter(path, lora.export(*parts, method), metadata)
    return path
