"""Disk space that a run needs, checked before it starts. No torch here."""

from __future__ import annotations

import shutil
from collections import defaultdict
from math import prod
from pathlib import Path

from . import ldm_names
from .adapter_files import intermediate_adapters
from .base_file import read_shapes
from .errors import OutOfSpace
from .places import Places
from .recipe import DreamBooth, LoRA, Recipe

GIGABYTE = 1024**3
_SD15_WEIGHTS = 983e6  # UNet and text encoder
# Weights of a rank-1 LoRA on SD 1.5's UNet and text encoder, by targets.
LORA_WEIGHTS = {
    "attention": (199_296, 73_728),
    "linear": (423_936, 165_888),
    "all": (1_050_816, 165_888),
}
# Bytes of optimizer state per weight in a checkpoint.
_OPTIMIZER_STATE_BYTES = {"adamw": 8.0, "adamw8bit": 2.1, "prodigy": 16.0}


def require_disk_space(recipe: Recipe, places: Places, checkpoints: Path) -> None:
    """Raises OutOfSpace unless the checkpoints and adapters fit on their disks.

    What is already in `checkpoints`, the run's folder of them, is not counted again.
    """
    if isinstance(recipe.method, DreamBooth):
        weights, adapters = _trained_weights(places.base), places.checkpoints
    else:
        weights, adapters = lora_weights(recipe, recipe.method), places.loras
    average = 4 if recipe.objective.ema_decay else 0
    checkpoint = weights * (4 + average + _OPTIMIZER_STATE_BYTES[recipe.optimizer.name])
    whole = checkpoint * (max(1, recipe.saving.keep) + 1)  # written before one is removed
    needs = {
        places.runs: max(checkpoint, whole - folder_size(checkpoints)),
        adapters: _adapters_to_save(recipe, adapters)
        * (weights * (4 if recipe.saving.dtype == "fp32" else 2) * 1.1),  # 1.1: with the VAE
    }
    disks: dict[int, list[Path]] = defaultdict(list)
    for folder in needs:
        disks[_existing_parent(folder).stat().st_dev].append(folder)
    for folders in disks.values():
        _check_disk(folders, sum(needs[folder] for folder in folders))


def _adapters_to_save(recipe: Recipe, folder: Path) -> int:
    """Number of adapters that a run has yet to save."""
    every, there = recipe.saving.adapters_every, intermediate_adapters(folder, recipe.run_name())
    planned = (recipe.schedule.steps - 1) // every if every else 0
    return 1 + max(0, planned - len(there))


def _check_disk(folders: list[Path], need: float) -> None:
    """Raises OutOfSpace unless the disk of these folders has `need` bytes free."""
    free = shutil.disk_usage(_existing_parent(folders[0])).free
    if free < need:
        raise OutOfSpace(
            f"{' and '.join(map(str, folders))}: {free / GIGABYTE:.1f} GB are free; this run needs "
            f"about {need / GIGABYTE:.1f} GB there. Free some space, or choose another folder."
        )


def folder_size(folder: Path) -> int:
    """Total bytes of the files below a folder; 0 if it does not exist."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _trained_weights(base: Path) -> float:
    """Number of weights that a full fine-tune trains, from the base's header if it has one."""
    if base.suffix != ".safetensors":
        return _SD15_WEIGHTS
    shapes = read_shapes(base)
    parts = (ldm_names.UNET, "cond_stage_model.")
    return sum(prod(shape) for name, shape in shapes.items() if name.startswith(parts))


def lora_weights(recipe: Recipe, method: LoRA) -> float:
    """Number of weights of a LoRA on SD 1.5; DoRA's scale is overestimated as one more rank."""
    unet, text = LORA_WEIGHTS[method.targets]
    return float((method.rank + method.dora) * (unet + text * recipe.text_encoder.train))


def _existing_parent(folder: Path) -> Path:
    folder = folder.absolute()
    return folder if folder.exists() or folder.parent == folder else _existing_parent(folder.parent)
