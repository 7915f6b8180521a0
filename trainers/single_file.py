"""SD 1.x models saved as a single file with LDM names, as DreamBooth's results are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel

from . import ldm_names
from .base_model import BaseModel, StateDict, Vae, shapes_of
from .errors import BaseModelError, OutputExists
from .weights import file_matches, write_weights

_DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


def check_savable(base: BaseModel) -> None:
    """Raises BaseModelError for a base on which DreamBooth could not save what it learns."""
    try:
        single_file_state(base.unet, base.text_encoder, base.vae)
    except BaseModelError as error:
        raise BaseModelError(
            f"{error} DreamBooth could not save what it learns: train a LoRA on this base, or "
            "DreamBooth on another one."
        ) from error


def save_single_file(
    path: Path,
    *,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    vae: Vae,
    dtype: Literal["fp16", "fp32"],
    prediction: str = "epsilon",
    metadata: Mapping[str, str],
    replace: bool = True,
) -> None:
    """Writes a checkpoint with LDM names, complete or not at all; see `write_weights`.

    Without `replace`, an existing file is kept if it is equal.

    Raises:
        OutputExists: another file has the name, and `replace` is False.
        OutOfSpace: the disk has too little space.
        BaseModelError: as `single_file_state`.
        RunFailed: a weight is not finite in `dtype`, or the file reads back differently.
    """
    state = single_file_state(unet, text_encoder, vae)
    if prediction == "v_prediction":
        state["v_pred"] = torch.zeros(0)  # a marker: only its name counts
    if path.exists() and not replace:
        if file_matches(path, state, _DTYPES[dtype], metadata):
            return
        raise OutputExists(f"{path} exists and is another checkpoint. Move it, or change the name.")
    write_weights(path, state, _DTYPES[dtype], metadata)


def single_file_state(
    unet: UNet2DConditionModel, text_encoder: CLIPTextModel, vae: Vae
) -> StateDict:
    """The tensors of a single file, which share the models' memory.

    Raises BaseModelError for a model that readers of the file would build differently.
    """
    return (
        _convert("UNet", lambda: _unet_state(unet))
        | _convert("VAE", lambda: _vae_state(vae))
        | _convert("text encoder", lambda: _text_state(text_encoder))
    )


def _convert(what: str, state: Callable[[], StateDict]) -> StateDict:
    try:
        return state()
    except (LookupError, TypeError, ValueError) as error:
        raise BaseModelError(
            f"This model cannot be saved as a single file: its {what} differs from SD 1.x's "
            f"({error.args[0] if isinstance(error, KeyError) else error})."
        ) from error


def _unet_state(unet: UNet2DConditionModel) -> StateDict:
    own, names = unet.state_dict(), ldm_names.unet_names(unet.config)
    state = ldm_names.to_ldm(own, names, ldm_names.UNET)
    inferred = ldm_names.unet_config(shapes_of(state, ldm_names.UNET))
    _check_assumed_config(unet.config, inferred)
    bare = {key.removeprefix(ldm_names.UNET): tensor for key, tensor in state.items()}
    back, _ = ldm_names.from_ldm(bare, ldm_names.unet_names(inferred))
    if lost := sorted(own.keys() - back.keys()):
        raise KeyError(lost[0])
    return state


def _vae_state(vae: Vae) -> StateDict:
    if isinstance(vae, AutoencoderTiny):
        names = ldm_names.tiny_vae_names(vae.config)
        state = ldm_names.to_ldm(vae.state_dict(), names, ldm_names.VAE)
        scale = torch.tensor(ldm_names.LATENT_SCALE / vae.config.scaling_factor)
        state[f"{ldm_names.VAE}vae_scale"] = scale
        state[f"{ldm_names.VAE}vae_shift"] = torch.tensor(0.0)
        return state
    state = ldm_names.to_ldm(vae.state_dict(), ldm_names.vae_names(vae.config), ldm_names.VAE)
    _check_assumed_config(vae.config, ldm_names.vae_config(shapes_of(state, ldm_names.VAE)))
    return state


def _text_state(text_encoder: CLIPTextModel) -> StateDict:
    state = text_encoder.state_dict()
    state = {key: tensor for key, tensor in state.items() if not key.endswith("position_ids")}
    state = ldm_names.to_ldm(state, ldm_names.text_names(state), ldm_names.TEXT)
    _check_assumed_config(
        text_encoder.config, ldm_names.text_config(shapes_of(state, ldm_names.TEXT))
    )
    return state


# Not inferable from shapes: readers of the file assume SD 1.x's values.
_ASSUMED_CONFIG = (
    *("attention_head_dim", "num_attention_heads", "norm_num_groups"),
    *("hidden_act", "scaling_factor"),
)


def _check_assumed_config(config: Any, inferred: Mapping[str, Any]) -> None:
    for key in _ASSUMED_CONFIG:
        has = getattr(config, key, None)
        values = set(has) if isinstance(has, list | tuple) else {has}
        if key in inferred and values != {inferred[key]}:
            raise BaseModelError(
                f"This model cannot be saved as a single file: its {key} is {has}, but readers "
                f"of the file would assume {inferred[key]}."
            )
