"""Blends a full fine-tune into a loaded base, as Load Adapter does in ComfyUI."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..trainers import ldm_names
from ..trainers.adapter_names import list_names
from ..trainers.base_model import BaseModel
from ..trainers.diffusers_folder import read_folder
from ..trainers.errors import AdapterError
from ..trainers.weights import read_weights

StateDict = Mapping[str, Tensor]


def blend(model: BaseModel, path: Path, strength_unet: float, strength_text: float) -> None:
    """Sets UNet and text encoder to base + strength * (tuned - base), exact at 0 and at 1.

    `path` is a checkpoint or a diffusers folder; its VAE is unused. Raises BaseModelError for a
    damaged file and AdapterError for one of another base; the model is then unchanged.
    """
    tensors = read_folder(path) if path.is_dir() else read_weights(path)
    parts = (
        (model.unet, _unet(model, tensors), strength_unet),
        (model.text_encoder, _text_encoder(model, tensors), strength_text),
    )
    for module, tuned, _ in parts:
        _check_shapes(path.name, dict(module.named_parameters()), tuned)
    for module, tuned, strength in parts:
        _lerp_parameters(module, tuned, strength)


def _unet(model: BaseModel, tensors: StateDict) -> StateDict:
    state = ldm_names.part(tensors, ldm_names.UNET)
    renamed, unknown = ldm_names.from_ldm(state, ldm_names.unet_names(model.unet.config))
    return renamed | {name: state[name] for name in unknown}


def _text_encoder(model: BaseModel, tensors: StateDict) -> StateDict:
    state = ldm_names.part(tensors, ldm_names.TEXT)
    names = ldm_names.text_names(model.text_encoder.state_dict())
    renamed, _ = ldm_names.from_ldm(state, names)  # a text projection is unused
    return {name: t for name, t in renamed.items() if not name.endswith("position_ids")}


def _check_shapes(file: str, base: StateDict, tuned: StateDict) -> None:
    differ = [
        name
        for name in {**tuned, **base}
        if name not in base or name not in tuned or base[name].shape != tuned[name].shape
    ]
    if differ:
        raise AdapterError(
            f"{file} does not fit this base: {len(differ)} weights differ in name or shape "
            f"({list_names(differ)}). Use the base it was trained from."
        )


@torch.no_grad()
def _lerp_parameters(module: Any, tuned: StateDict, strength: float) -> None:
    if not strength:
        return
    for name, weight in module.named_parameters():
        end = tuned[name].to(weight.device, torch.float32)
        weight.copy_(end if strength == 1 else torch.lerp(weight.float(), end, strength))
