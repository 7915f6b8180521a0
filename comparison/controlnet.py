"""SD 1.x ControlNets (arXiv:2302.05543) from local files, and their residuals for sampling."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel
from PIL import Image
from torch import Tensor, nn

from ..trainers import ldm_names
from ..trainers.base_file import read_config
from ..trainers.base_model import load_part
from ..trainers.cpu import use_im2col_convs
from ..trainers.errors import BaseModelError, LikenessError
from ..trainers.memory import is_out_of_memory
from ..trainers.safetensors_file import Shapes
from ..trainers.sampler import ControlNet
from ..trainers.weights import read_weights
from .errors import ComparisonError

_HINT_WIDTHS = (16, 32, 96, 256)  # the same in every SD 1.x ControlNet, so not inferred
_LOAD_ERRORS = (LikenessError, OSError, RuntimeError, TypeError, ValueError)


def load_controlnet(
    path: Path, unet: Any, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> ControlNetModel:
    """Loads the ControlNet for a UNet from a file with LDM names or a diffusers folder.

    Raises ComparisonError for a damaged file and for a ControlNet of another model family.
    """
    try:
        model = _from_folder(path) if path.is_dir() else _from_file(path)
    except KeyError as error:
        raise ComparisonError(
            f"{path.name} is not a ControlNet for SD 1.x: it lacks {error.args[0]}. Choose a file "
            "with LDM names, such as control_v11p_sd15_openpose, or a diffusers folder."
        ) from None
    except _LOAD_ERRORS as error:
        if is_out_of_memory(error):
            raise
        raise ComparisonError(f"{path.name} cannot be used as a ControlNet: {error}") from error
    for key in ("cross_attention_dim", "block_out_channels", "in_channels"):
        ours, theirs = _plain(unet.config[key]), _plain(model.config[key])
        if ours != theirs:
            raise ComparisonError(
                f"{path.name} is a ControlNet for another model family: its {key} is {theirs}, the "
                f"base model's is {ours}. Choose one that was made for this base's family."
            )
    if device == "cpu":
        use_im2col_convs(model)
    # diffusers' own `to` warns about an empty list of modules to keep in fp32.
    return nn.Module.to(model.eval(), device, dtype)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _from_folder(path: Path) -> ControlNetModel:
    if read_config(path / "config.json").get("_class_name") != "ControlNetModel":
        raise ValueError("its config.json is not a ControlNet's")
    model: ControlNetModel = load_part(ControlNetModel, path, torch.float32)
    return model


def _from_file(path: Path) -> ControlNetModel:
    if not path.is_file():
        raise BaseModelError("the file does not exist")
    state: Mapping[str, Tensor] = read_weights(path)
    state = ldm_names.part(state, ldm_names.CONTROL) or state
    config = _config({name: tuple(tensor.shape) for name, tensor in state.items()})
    renamed, _ = ldm_names.from_ldm(state, ldm_names.controlnet_names(config))
    model = ControlNetModel(**config)
    model.load_state_dict({name: renamed[name].float() for name in model.state_dict()})
    return model


def _config(shapes: Shapes) -> dict[str, Any]:
    """Keyword arguments of ControlNetModel, inferred like a UNet's: the encoder has its names."""
    config = ldm_names.unet_config({**shapes, "out.2.weight": (4,)})
    for key in ("sample_size", "out_channels", "up_block_types"):
        del config[key]
    return config | {"conditioning_embedding_out_channels": _HINT_WIDTHS}


def controlnet_for_hint(model: ControlNetModel, hint: Image.Image, strength: float) -> ControlNet:
    """The residual function of a ControlNet for one RGB pose image of the output's size."""
    pixels = torch.from_numpy(np.array(hint)).float().permute(2, 0, 1)[None] / 255

    @cache  # copied once, not in every step
    def image(device: torch.device, dtype: torch.dtype) -> Tensor:
        return pixels.to(device, dtype)

    def residuals(x: Tensor, timestep: Tensor, states: Tensor) -> tuple[list[Tensor], Tensor]:
        given = image(x.device, x.dtype).expand(len(x), -1, -1, -1)
        down, middle = model(
            x, timestep, states, given, conditioning_scale=strength, return_dict=False
        )
        return down, middle

    return residuals
