"""SD 1.x base models, loaded from a single file or a diffusers folder.

Works offline: the configs of a single file are inferred from its tensors' shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from . import base_file, ldm_names
from .base_file import BaseFile
from .errors import BaseModelError
from .memory import is_out_of_memory
from .tokenizer import find_tokenizers, load_tokenizer
from .weights import read_weights, refuse_unsafe_pickles

StateDict = dict[str, Tensor]
Built = TypeVar("Built")
Vae = AutoencoderKL | AutoencoderTiny

# What the libraries raise for tensors and configs that do not match.
_LOAD_ERRORS = (
    *(ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    SafetensorError,
)


@dataclass
class BaseModel:
    """The parts of a Stable Diffusion 1.x model, in evaluation mode.

    `prediction` is the UNet's prediction type: ``epsilon`` or ``v_prediction``.
    """

    unet: UNet2DConditionModel
    vae: Vae
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    prediction: str


# Loading.


def load_base(
    path: Path,
    tokenizers: Sequence[Path] = (),
    *,
    prediction: Literal["auto", "epsilon", "v_prediction"] = "auto",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> BaseModel:
    """Loads a checkpoint (.safetensors, or .ckpt without code in it) or a diffusers folder.

    `dtype` is that of the UNet and the text encoder; the VAE is fp32, because SD 1.x's overflows
    in fp16 on some images and its latents would depend on the run's precision. `tokenizers` are
    folders to search for the CLIP tokenizer, see `find_tokenizers`; the first one no larger than
    the text encoder's vocabulary is used. `prediction` ``auto`` uses what the file declares.
    Tensors outside the three parts (EMA weights, the noise schedule) are ignored.

    Raises:
        BaseModelError: not a base model, damaged, incomplete, or without a matching tokenizer.
    """
    file = base_file.identify(Path(path))
    found_tokenizers = find_tokenizers(file.path, tokenizers)
    load = _load_folder if file.kind == "diffusers" else _load_single_file
    unet, vae, text_encoder, found = load(file, dtype, torch.device(device))
    tokenizer = _choose_tokenizer(found_tokenizers, text_encoder.config.vocab_size, file.path)
    chosen = found if prediction == "auto" else prediction
    # Also moves buffers that no file contains, such as the text encoder's position ids.
    parts: list[nn.Module] = [unet, vae, text_encoder]
    for part in parts:
        part.to(device).eval()
    return BaseModel(unet, vae, text_encoder, tokenizer, chosen)


def _choose_tokenizer(folders: Sequence[Path], vocabulary: int, base: Path) -> CLIPTokenizer:
    sizes = []
    for folder in folders:
        tokenizer = load_tokenizer(folder)
        if len(tokenizer) <= vocabulary:
            return tokenizer
        sizes.append(f"{len(tokenizer):,} entries in {folder}")
    raise BaseModelError(
        f"The text encoder of {base.name} has {vocabulary:,} entries, fewer than every tokenizer "
        f"found ({'; '.join(sizes)}): they belong to another model. Put the matching tokenizer "
        f"into a folder named {base.stem}_tokenizer beside the file."
    )


_Parts = tuple[UNet2DConditionModel, Vae, CLIPTextModel, str]


def _load_single_file(file: BaseFile, dtype: torch.dtype, device: torch.device) -> _Parts:
    state, name = read_weights(file.path), file.path.name
    base_file.check_family(shapes_of(state), name)  # a pickle is not checked before

    def placed(prefix: str, dtype: torch.dtype = dtype) -> StateDict:
        return _copy_to_device(ldm_names.part(state, prefix), dtype, device)

    vae = _build_or_raise(f"VAE in {name}", lambda: _vae(placed(ldm_names.VAE, torch.float32)))
    return (
        _build_or_raise(f"UNet in {name}", lambda: _unet(placed(ldm_names.UNET))),
        vae,
        _build_or_raise(f"text encoder in {name}", lambda: _text_encoder(placed(ldm_names.TEXT))),
        base_file.detect_prediction(state),
    )


def _load_folder(file: BaseFile, dtype: torch.dtype, device: torch.device) -> _Parts:
    tiny = base_file.read_config(file.path / "vae" / "config.json").get("_class_name")
    vae_class = AutoencoderTiny if tiny == "AutoencoderTiny" else AutoencoderKL
    text = file.path / "text_encoder"

    def text_encoder() -> CLIPTextModel:
        config = CLIPTextConfig.from_pretrained(
            str(text),
            local_files_only=True,
            attn_implementation="sdpa",  # a folder's config could name code to download
        )
        state: StateDict = {}
        for weights in base_file.weight_files(text):
            if weights.suffix != ".json":
                state |= read_weights(weights)
        state = {key.removeprefix("text_model."): value for key, value in state.items()}
        return _named_text_encoder(config, _copy_to_device(state, dtype, device))

    def pretrained(kind: Any, folder: str, dtype: torch.dtype = dtype) -> Any:
        return load_part(kind, file.path / folder, dtype).to(device)

    vae = _build_or_raise(
        f"VAE in {file.path}", lambda: pretrained(vae_class, "vae", torch.float32)
    )
    return (
        _build_or_raise(f"UNet in {file.path}", lambda: pretrained(UNet2DConditionModel, "unet")),
        vae,
        _build_or_raise(f"text encoder in {file.path}", text_encoder),
        file.prediction,
    )


def _copy_to_device(state: StateDict, dtype: torch.dtype, device: torch.device) -> StateDict:
    """Copies `state` to the device, in `dtype` except for scalars, so that its file can go."""
    return {
        key: tensor.to(device).to(dtype if tensor.ndim else tensor.dtype, copy=True)
        for key, tensor in state.items()
    }


def _build_or_raise(what: str, build: Callable[[], Built]) -> Built:
    """Returns `build()`; errors from mismatched tensors become one that names the part."""
    try:
        return build()
    except KeyError as error:
        raise BaseModelError(f"The {what} is incomplete: it lacks {error.args[0]}.") from error
    except _LOAD_ERRORS as error:
        if is_out_of_memory(error):
            raise
        raise BaseModelError(f"The {what} cannot be loaded: {error}") from error


def _unet(state: StateDict) -> UNet2DConditionModel:
    config = ldm_names.unet_config(shapes_of(state))
    renamed, unknown = ldm_names.from_ldm(state, ldm_names.unet_names(config))
    if unknown:
        raise ValueError(f"SD 1.x does not have its layers {', '.join(unknown[:3])}")
    with init_empty_weights(include_buffers=False):
        unet = UNet2DConditionModel(**config)
    return _assign_state_dict(unet, renamed)


def _vae(state: StateDict) -> Vae:
    shapes = shapes_of(state)
    if "taesd_encoder.0.weight" in shapes:
        config = ldm_names.tiny_vae_config(shapes)
        if float(state.get("vae_shift", torch.zeros(()))):
            raise ValueError("its latents are shifted (vae_shift), unlike those of SD 1.x")
        # ComfyUI divides the latents by vae_scale and SD 1.x multiplies them by 0.18215.
        scale = float(state.get("vae_scale", torch.ones(())))
        if not 0 < scale < math.inf:
            raise ValueError(f"its vae_scale is {scale}")
        config["scaling_factor"] = round(ldm_names.LATENT_SCALE / scale, 6)
        renamed, _ = ldm_names.from_ldm(state, ldm_names.tiny_vae_names(config))
        with init_empty_weights(include_buffers=False):
            tiny = AutoencoderTiny(**config)
        return _assign_state_dict(tiny, renamed)
    config = ldm_names.vae_config(shapes)
    renamed, _ = ldm_names.from_ldm(state, ldm_names.vae_names(config))
    with init_empty_weights(include_buffers=False):
        vae = AutoencoderKL(**config)
    return _assign_state_dict(vae, renamed)


def _text_encoder(state: StateDict) -> CLIPTextModel:
    config = CLIPTextConfig(**ldm_names.text_config(shapes_of(state)))
    return _named_text_encoder(config, state)


def _named_text_encoder(config: CLIPTextConfig, state: StateDict) -> CLIPTextModel:
    """Builds a text encoder from `state`, whose names lack ``text_model.``"""
    with init_empty_weights(include_buffers=False):
        text_encoder = CLIPTextModel(config)
    names = ldm_names.text_names(text_encoder.state_dict())
    return _assign_state_dict(text_encoder, ldm_names.from_ldm(state, names)[0])


def _assign_state_dict(model: Any, state: StateDict) -> Any:
    """Assigns `state` to a model built without storage. Raises KeyError for missing tensors."""
    missing, _ = model.load_state_dict(state, strict=False, assign=True)
    lacking = [key for key in missing if not key.endswith("position_ids")]
    if lacking:
        raise KeyError(f"{len(lacking)} tensors, among them {', '.join(lacking[:3])}")
    return model


def load_part(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Loads one model of a diffusers folder; diffusers also converts its own old tensor names.

    Raises KeyError for missing tensors, which diffusers would initialise at random,
    BaseModelError, and what diffusers raises for damaged files.
    """
    first = base_file.weight_files(folder)[0]
    if first.suffix in base_file.PICKLE_SUFFIXES:
        refuse_unsafe_pickles(first)
    model, report = kind.from_pretrained(
        str(folder),
        torch_dtype=dtype,
        local_files_only=True,
        use_safetensors=".safetensors" in first.name,
        variant="fp16" if ".fp16." in first.name else None,
        output_loading_info=True,
    )
    if report["missing_keys"]:
        raise KeyError(f"tensors, among them {', '.join(sorted(report['missing_keys'])[:3])}")
    return model


def shapes_of(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Tensor shapes by name, without `prefix`."""
    return {key.removeprefix(prefix): tuple(tensor.shape) for key, tensor in state.items()}
