"""The trained parts as files between stages: fp16 safetensors with the models' own names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderTiny
from torch.nn import Module

from ..trainers.errors import BaseModelError
from ..trainers.files import write_atomic
from ..trainers.run_folder import saved_steps
from ..trainers.weights import read_weights, write_weights
from . import miniature

Model = TypeVar("Model", bound=Module)


def save_part(path: Path, model: Module) -> None:
    """Writes a model's weights in fp16."""
    write_weights(path, model.state_dict(), torch.float16, {})


def load_vae(path: Path) -> AutoencoderTiny:
    """Loads the VAE of a part at its training width. Raises BaseModelError as `load_part` does."""
    widths = [miniature.TAESD_CHANNELS] * 2
    if path.is_file():
        found = map(read_weights(path).get, ("encoder.layers.0.weight", "encoder.layers.10.weight"))
        widths = [len(f) if f is not None else w for f, w in zip(found, widths, strict=True)]
    vae = miniature.new_vae(*widths)
    load_part(path, vae)
    return vae


def load_part(path: Path, model: Module, *, missing_ok: bool = False) -> bool:
    """Loads a part's weights into `model` in place; returns whether the file exists.

    Raises:
        BaseModelError: the file is missing (unless `missing_ok`), damaged, or of another layout.
    """
    if not path.is_file():
        if missing_ok:
            return False
        raise BaseModelError(
            f"{path} is missing: run `likeness demo pretrain --stage {path.stem}` first."
        )
    try:
        model.load_state_dict(read_weights(path))
    except RuntimeError as error:
        raise BaseModelError(f"{path} does not fit this code's {path.stem}: {error}") from None
    return True


def placed(
    model: Model, device: torch.device, layout: torch.memory_format = torch.preserve_format
) -> Model:
    """Moves a model to a device, with convolution weights in a memory format."""
    return model.to(device, memory_format=layout)  # type: ignore[call-overload]  # torch lacks it


def began_trained(folder: Path, part: Path) -> bool:
    """Whether a stage's course started, or starts now, from an existing part.

    The part is also written during training, so the answer is stored beside the checkpoints.
    """
    mark = folder / "began.json"
    if not mark.is_file() or not saved_steps(folder / "checkpoints"):
        write_atomic(mark, json.dumps(part.is_file()))
    return bool(json.loads(mark.read_text(encoding="utf-8")))
