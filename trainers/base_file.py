"""Identifies base model files by their headers: reads no weights and imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import ldm_names
from .adapter_names import list_names
from .errors import BaseModelError
from .safetensors_file import Shapes, read_header

PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
PARTS = ("unet", "vae", "text_encoder")  # folders of a diffusers model that are loaded

_CHOOSE_SD1 = "Choose a Stable Diffusion 1.x checkpoint."
_WITHOUT = "a checkpoint without "
_NO_VAE = f"{_WITHOUT}a VAE"
_ADD_VAE = (
    "Add one: in ComfyUI, connect its model and clip and an SD 1.x VAE (Load VAE) to "
    "Save Checkpoint, and train on the saved file."
)
_LORA_MARKERS = (
    ".lora_up.",
    ".lora_down.",
    ".lora_A.",
    ".lora_B.",
    ".hada_w1_",
    ".lokr_w",
    "_lora.",
)

# SD 1.x's noise schedule, in the fields of diffusers' scheduler configs.
_NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
}


@dataclass(frozen=True)
class BaseFile:
    """An SD 1.x model: its path, storage format and prediction type."""

    path: Path
    kind: Literal["single_file", "diffusers"]
    prediction: Literal["epsilon", "v_prediction"]


def identify(path: Path) -> BaseFile:
    """Identifies a base model that can be trained.

    A pickled checkpoint (.ckpt) is accepted by its extension; its content is checked on loading.

    Raises:
        BaseModelError: missing, damaged or another kind of model, which the message names.
    """
    path = Path(path)
    if path.is_dir():
        return BaseFile(path, "diffusers", _identify_folder(path))
    if not path.is_file():
        raise BaseModelError(f"There is no base model at {path}.")
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return BaseFile(path, "single_file", "epsilon")
    if path.suffix.lower() != ".safetensors":
        raise BaseModelError(
            f"{path.name} is not a model file: expected .safetensors, .ckpt or a diffusers folder."
        )
    shapes = read_shapes(path)
    check_family(shapes, path.name)
    return BaseFile(path, "single_file", detect_prediction(shapes))


def detect_prediction(keys: Mapping[str, Any]) -> Literal["epsilon", "v_prediction"]:
    """Prediction type of a checkpoint's UNet: the key ``v_pred`` marks v-prediction."""
    return "v_prediction" if "v_pred" in keys else "epsilon"


def check_noise_schedule(base: BaseFile) -> None:
    """Raises BaseModelError if a base declares a noise schedule other than SD 1.x's.

    Training uses SD 1.x's, and assumes it for pickles and files that declare none.
    """
    others = []
    if base.kind == "diffusers":
        scheduler = base.path / "scheduler" / "scheduler_config.json"
        config = read_config(scheduler) if scheduler.is_file() else {}
        declared = {name: config.get(name, value) for name, value in _NOISE_SCHEDULE.items()}
        others = [
            f"{name} {declared[name]!r:.80}"
            for name in _NOISE_SCHEDULE
            if declared[name] != _NOISE_SCHEDULE[name]
        ]
    elif base.path.suffix.lower() == ".safetensors" and "ztsnr" in read_shapes(base.path):
        others = ["zero terminal SNR (ztsnr)"]
    if others:
        raise BaseModelError(
            f"{base.path.name} uses a noise schedule other than Stable Diffusion 1.x's: "
            f"{', '.join(others)}. Training with that of 1.x would give wrong results. Choose "
            "another base."
        )


# Single files.


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file. Raises BaseModelError."""
    try:
        return read_header(path).shapes
    except OSError as error:
        raise BaseModelError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise BaseModelError(f"{path.name} {error}. Download it again.") from None


def is_full_fine_tune(path: Path) -> bool:
    """Whether an adapter holds a whole UNet: a diffusers folder, or a checkpoint with or without
    its other parts. Raises BaseModelError for a damaged file.
    """
    return path.is_dir() or any(name.startswith(ldm_names.UNET) for name in read_shapes(path))


def check_family(shapes: Shapes, name: str) -> None:
    """Raises BaseModelError unless tensors of these names and shapes are an SD 1.x checkpoint."""
    found = detect_other_family(shapes)
    if found is None:
        found = _missing_parts(shapes)
    if found is None:
        return
    if not found:
        some = list_names(sorted(shapes)) or "none"
        raise BaseModelError(
            f"{name} is not recognised as a checkpoint. Its first tensors: {some}. {_CHOOSE_SD1}"
        )
    raise BaseModelError(f"{name} is {found}. {_ADD_VAE if found == _NO_VAE else _CHOOSE_SD1}")


def detect_other_family(shapes: Shapes) -> str | None:
    """What the tensors are if not an SD 1.x checkpoint, as a phrase such as ``an SDXL model``.

    "" for an unknown kind, None for SD 1.x.
    """

    def begins(*prefixes: str) -> bool:
        return any(key.startswith(prefixes) for key in shapes)

    if any(mark in key for key in shapes for mark in _LORA_MARKERS):
        return "a LoRA or other adapter, which is loaded on top of a checkpoint"
    if any(".joint_blocks." in f".{key}" for key in shapes):
        return "a Stable Diffusion 3 model"
    if any(".double_blocks." in f".{key}" for key in shapes):
        return "a FLUX model"
    if begins("control_model.", "input_hint_block.", "controlnet_cond_embedding."):
        return "a ControlNet"
    if begins(ldm_names.UNET):
        unet = ldm_names.part(shapes, ldm_names.UNET)
        return _other_unet(unet, sdxl=begins("conditioner."))
    if begins(
        "cond_stage_model.", "text_model.", "embeddings.token_embedding.", "transformer.text"
    ):
        return "a text encoder without a UNet"
    if begins(ldm_names.VAE, "encoder.conv_in.", "decoder.conv_in.", "taesd_"):
        return "a VAE without a UNet"
    if begins("input_blocks.", "down_blocks."):
        return "a UNet without a text encoder or a VAE"
    return ""


def _other_unet(shapes: Shapes, sdxl: bool) -> str | None:
    context = cross_attention_dim(shapes)
    if sdxl or context == 2048 or any(key.startswith("label_emb.") for key in shapes):
        return "an SDXL model"
    if context == 1024:
        return "a Stable Diffusion 2.x model"
    first = shapes.get("input_blocks.0.0.weight", ())
    if len(first) != 4:
        return "a diffusion model of another family"
    return _other_channels(first[1])


def _other_channels(channels: object) -> str | None:
    """What a UNet with this number of input channels is; None for SD 1.x's 4."""
    if channels == 4:
        return None
    if channels == 9:
        return "an inpainting model"
    if channels == 8:
        return "an instruct-pix2pix model"
    return f"a model whose UNet has {channels} input channels (SD 1.x: 4)"


def cross_attention_dim(shapes: Shapes) -> int | None:
    """Width of the text embeddings that a UNet or ControlNet attends to; None if it has none."""
    found = (
        shape[-1] for key, shape in shapes.items() if shape and key.endswith(".attn2.to_k.weight")
    )
    return next(found, None)


def _missing_parts(shapes: Shapes) -> str | None:
    parts = {ldm_names.TEXT: "a text encoder", ldm_names.VAE: "a VAE"}
    lacking = [what for prefix, what in parts.items() if not ldm_names.part(shapes, prefix)]
    return _WITHOUT + " or ".join(lacking) if lacking else None


# Diffusers folders.


def _identify_folder(folder: Path) -> Literal["epsilon", "v_prediction"]:
    index = folder / "model_index.json"
    pipeline = read_config(index).get("_class_name", "") if index.is_file() else ""
    families = {"XL": "an SDXL model", "Diffusion3": "a Stable Diffusion 3 model"}
    families |= {"Flux": "a FLUX model", "ControlNet": "a ControlNet pipeline"}
    found = next((what for mark, what in families.items() if mark in str(pipeline)), None)
    if found:
        raise BaseModelError(f"{folder.name} is {found}. {_CHOOSE_SD1}")
    if not (folder / "unet" / "config.json").is_file():
        raise BaseModelError(
            f"{folder} is not a diffusers model: it has no unet/config.json. {_CHOOSE_SD1}"
        )
    found = _other_unet_config(read_config(folder / "unet" / "config.json"))
    if found:
        raise BaseModelError(f"{folder.name} is {found}. {_CHOOSE_SD1}")
    for part in PARTS:
        weight_files(folder / part)
    scheduler = folder / "scheduler" / "scheduler_config.json"
    kind = read_config(scheduler).get("prediction_type") if scheduler.is_file() else None
    if kind not in (None, "epsilon", "v_prediction"):
        raise BaseModelError(
            f"{folder.name} predicts {kind!r}, not noise or velocity. {_CHOOSE_SD1}"
        )
    return kind or "epsilon"


def _other_unet_config(config: Mapping[str, Any]) -> str | None:
    context = config.get("cross_attention_dim")
    if context == 2048 or config.get("addition_embed_type"):
        return "an SDXL model"
    if context == 1024:
        return "a Stable Diffusion 2.x model"
    return _other_channels(config.get("in_channels", 4))


def read_config(path: Path) -> dict[str, Any]:
    """Reads a JSON object of a model folder. Raises BaseModelError."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BaseModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise BaseModelError(f"{path} is not a JSON object.")
    return config


def weight_files(part: Path) -> tuple[Path, ...]:
    """Weight files of one part: safetensors preferred, then full precision.

    The index of a sharded model comes first. Raises BaseModelError if there are none.
    """
    stem = "model" if part.name == "text_encoder" else "diffusion_pytorch_model"
    pickle = "pytorch_model" if part.name == "text_encoder" else stem
    for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors", f"{pickle}.bin"):
        file, index = part / name, part / f"{name}.index.json"
        if file.is_file():
            return (file,)
        if index.is_file():
            shards = read_config(index).get("weight_map")
            if not isinstance(shards, dict):
                raise BaseModelError(f"{index} lists no weight files (weight_map).")
            return (index, *(part / Path(str(name)).name for name in sorted(set(shards.values()))))
    raise BaseModelError(f"There are no weights in {part} (expected {stem}.safetensors).")


def model_files(path: Path) -> list[Path]:
    """Files of a base model that are loaded. Raises BaseModelError if any are missing."""
    if not path.is_dir():
        return [path]
    files = []
    for part in PARTS:
        files += [path / part / "config.json", *weight_files(path / part)]
    scheduler = path / "scheduler" / "scheduler_config.json"
    return [*files, scheduler] if scheduler.is_file() else files
