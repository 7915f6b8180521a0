"""Weights of a diffusers folder under single-file names, without building the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import ldm_names
from .base_file import identify, read_config, weight_files
from .errors import BaseModelError

if TYPE_CHECKING:
    from torch import Tensor


def read_folder(folder: Path) -> dict[str, Tensor]:
    """Reads the UNet and text encoder of an SD 1.x folder, unchanged, under single-file names.

    The tensors are backed by their files. Raises BaseModelError for another family, missing or
    damaged files, and tensors that SD 1.x does not have.
    """
    identify(folder)
    unet, text = _read_part(folder / "unet"), _read_part(folder / "text_encoder")
    text = {key: value for key, value in text.items() if not key.endswith("position_ids")}
    names = ldm_names.unet_names(_unet_config(folder))
    return {
        **_renamed(unet, names, ldm_names.UNET, folder),
        **_renamed(text, ldm_names.text_names(text), ldm_names.TEXT, folder),
    }


def _unet_config(folder: Path) -> dict[str, Any]:
    config = read_config(folder / "unet" / "config.json")
    needed = ("layers_per_block", "block_out_channels", "down_block_types", "up_block_types")
    if lacking := [key for key in needed if key not in config]:
        raise BaseModelError(f"{folder.name}/unet/config.json lacks {', '.join(lacking)}.")
    return config


def _read_part(part: Path) -> dict[str, Tensor]:
    from .weights import read_weights

    tensors: dict[str, Tensor] = {}
    for path in weight_files(part):
        if path.suffix != ".json":  # the index of a sharded model
            tensors |= read_weights(path)
    return tensors


def _renamed(
    tensors: Mapping[str, Tensor], names: ldm_names.NameMap, prefix: str, folder: Path
) -> dict[str, Tensor]:
    try:
        return ldm_names.to_ldm(tensors, names, prefix)
    except KeyError as error:
        raise BaseModelError(
            f"{folder.name} has a tensor that Stable Diffusion 1.x lacks: {error.args[0]}."
        ) from None
