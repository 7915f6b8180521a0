"""Prior preservation without class images: the base's own predictions are the targets.

On noisy photographs, under the class prompt, the model should keep predicting what the base
predicts. The base is frozen: with a LoRA it is the model without its adapters, and for a full
fine-tune a copy of the UNet in the compute precision.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import lora
from .base_model import BaseModel
from .recipe import LoRA, Recipe
from .text_encoding import encode_text


@dataclass(frozen=True)
class Teacher:
    """The base's predictions. `embeddings` (p, t, d) of all prompts, by its text encoder."""

    unet: Any
    embeddings: Tensor
    adapters: bool  # whether `unet` is the trained one, with adapters to disable

    @torch.no_grad()
    def predict(self, noisy: Tensor, timesteps: Tensor, prompts: Tensor) -> Tensor:
        """The base's prediction (n, 4, h, w) for samples with these prompts' numbers (n,)."""
        alone: AbstractContextManager[None] = nullcontext()
        if self.adapters:
            alone = lora.adapters_disabled(self.unet)
        with alone:
            states = self.embeddings[prompts]
            predicted: Tensor = self.unet(noisy, timesteps, encoder_hidden_states=states).sample
        return predicted


@torch.no_grad()
def build_teacher(
    recipe: Recipe, base: BaseModel, ids: Tensor, dtype: torch.dtype
) -> Teacher | None:
    """The teacher if the recipe asks for one, else None; `base` must still be untrained.

    `ids` (p, t) are the token ids of all prompts, on the base's device.
    """
    if recipe.prior is None or recipe.prior.source != "teacher":
        return None
    clip_skip = recipe.text_encoder.clip_skip
    rows = [encode_text(base.text_encoder, row[None], clip_skip) for row in ids]
    adapters = isinstance(recipe.method, LoRA)
    unet = base.unet if adapters else _copy(base.unet, dtype)
    return Teacher(unet, torch.cat(rows), adapters)


def _copy(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A frozen copy in `dtype`, made without a second copy in the model's own dtype."""
    values = {
        id(parameter): nn.Parameter(parameter.to(dtype, copy=True), requires_grad=False)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, values).to(dtype)
