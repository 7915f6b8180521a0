"""How much a run will write, asked of the disks before it starts. No torch here."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator
from math import prod
from pathlib import Path

from .base_file import read_shapes, weight_files
from .errors import OutOfSpace
from .ldm_names import UNET
from .places import Places
from .recipe import DreamBooth, LoRA, Recipe
from .step_files import on_the_way

GIGABYTE = 1024**3
_TEXT = "cond_stage_model."
_SD15_WEIGHTS = 983e6  # UNet and text encoder
# Of a LoRA of rank 1 on SD 1.5, in UNet and text encoder, by targets: for bases without a header.
_SD15_RANK = {
    "attention": (199_296, 73_728),
    "linear": (423_936, 165_888),
    "all": (1_050_816, 165_888),
}
# The layers that LoRAs are put beside, by the end of their names: diffusers' and the LDM ones.
_ATTENTION = (
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("q_proj", "k_proj", "v_proj", "out_proj"),
)
_LINEAR = (*_ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "fc1", "fc2")
_ALL = (
    *_LINEAR,
    *("conv1", "conv2", "conv_shortcut", "time_emb_proj", "conv"),
    *("in_layers.2", "out_layers.3", "skip_connection", "emb_layers.1", "op"),
)
_TARGETS = {"attention": _ATTENTION, "linear": _LINEAR, "all": _ALL}
# Bytes a weight of an optimizer's states in a checkpoint.
_STATES = {"adamw": 8.0, "adamw8bit": 2.1, "prodigy": 16.0}


def check_space(recipe: Recipe, places: Places, checkpoints: Path) -> None:
    """Raises OutOfSpace unless the checkpoints and the adapter fit on their disks.

    What lies in `checkpoints`, the run's folder of them, need not be asked for again.
    """
    if isinstance(recipe.method, DreamBooth):
        weights, adapters = _trained_weights(places.base), places.checkpoints
    else:
        weights, adapters = lora_weights(recipe, recipe.method, places.base), places.loras
    average = 4 if recipe.objective.ema_decay else 0
    checkpoint = weights * (4 + average + _STATES[recipe.optimizer.name])
    whole = checkpoint * (max(1, recipe.saving.keep) + 1)  # the new one before the old one goes
    needs = {
        places.runs: max(checkpoint, whole - size_of(checkpoints)),
        adapters: _files(recipe, adapters)
        * (weights * (4 if recipe.saving.dtype == "fp32" else 2) * 1.1),
    }
    disks: dict[int, list[Path]] = defaultdict(list)
    for folder in needs:
        disks[_existing(folder).stat().st_dev].append(folder)
    for folders in disks.values():
        _check_disk(folders, sum(needs[folder] for folder in folders))


def _files(recipe: Recipe, folder: Path) -> int:
    """How many adapters a run is yet to save, each with the VAE where it is a checkpoint."""
    every, there = recipe.saving.adapters_every, on_the_way(folder, recipe.run_name())
    planned = (recipe.schedule.steps - 1) // every if every else 0
    return 1 + max(0, planned - len(there))


def _check_disk(folders: list[Path], need: float) -> None:
    """Raises OutOfSpace unless the disk of these folders has so many bytes free."""
    free = shutil.disk_usage(_existing(folders[0])).free
    if free < need:
        raise OutOfSpace(
            f"{' and '.join(map(str, folders))}: {free / GIGABYTE:.1f} GB are free; this run needs "
            f"about {need / GIGABYTE:.1f} GB there. Free some space, or choose another folder."
        )


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _trained_weights(base: Path) -> float:
    """How many weights a full fine-tune trains, as far as the base's header says."""
    if base.suffix != ".safetensors":
        return _SD15_WEIGHTS
    shapes = read_shapes(base)
    parts = (UNET, _TEXT)
    return sum(prod(shape) for name, shape in shapes.items() if name.startswith(parts))


def lora_weights(recipe: Recipe, method: LoRA, base: Path) -> float:
    """How many weights a LoRA has, as far as the base's headers say.

    Beside a layer of (out, in, …) there are rank · (out + in · …); DoRA's scale counts as one rank
    more, which is more than it has.
    """
    ends = tuple(f".{name}.weight" for name in _TARGETS[method.targets])
    unet, text = _SD15_RANK[method.targets]
    found = _shapes(base)
    if found is not None:
        unet, text = (
            sum(shape[0] + prod(shape[1:]) for name, shape in part if name.endswith(ends))
            for part in found
        )
    rank = method.rank + method.dora
    return float(rank * (unet + text * recipe.text_encoder.train))


Shapes = list[tuple[str, tuple[int, ...]]]


def _shapes(base: Path) -> tuple[Shapes, Shapes] | None:
    """Names and shapes of UNet and text encoder; None where no header says them."""
    if base.is_dir():
        files = [[*_tensor_files(base / part)] for part in ("unet", "text_encoder")]
        if any(file.suffix != ".safetensors" for part in files for file in part):
            return None
        unet, text = ([s for f in part for s in read_shapes(f).items()] for part in files)
        return unet, text
    if base.suffix != ".safetensors":
        return None
    shapes = read_shapes(base).items()
    unet, text = ([s for s in shapes if s[0].startswith(part)] for part in (UNET, _TEXT))
    return unet, text


def _tensor_files(part: Path) -> Iterator[Path]:
    return (file for file in weight_files(part) if file.suffix != ".json")


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return folder if folder.exists() or folder.parent == folder else _existing(folder.parent)
