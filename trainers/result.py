"""A run's output: one adapter file that any program can load, and `result.json`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from . import lora
from .adapter import OUTPUT_NAME_KEY, save_adapter
from .adapter_files import adapter_stem
from .adapter_metadata import build_metadata
from .base_model import BaseModel
from .errors import NothingLearned, OutputExists
from .files import make_folder
from .recipe import LoRA, Recipe
from .run import Run
from .run_folder import Result
from .single_file import save_single_file
from .tokenizer import save_tokenizer_beside


def save_adapter_file(run: Run, base: BaseModel, steps: int) -> Path:
    """Saves what was learned in `steps` steps: a LoRA, or a whole checkpoint for DreamBooth.

    Raises NothingLearned for a LoRA that would change nothing.

    Files in a model list may be in use and are never overwritten: a number is added to the name,
    unless the existing file is this very result (the process was killed after saving it).
    """
    recipe, places = run.recipe, run.places
    folder = places.loras if isinstance(recipe.method, LoRA) else places.checkpoints
    name, after = run.folder.path.name, steps if steps < recipe.schedule.steps else None
    if not run.accelerator.is_main_process:
        return folder / f"{adapter_stem(name, after)}.safetensors"
    make_folder(folder)
    metadata = build_metadata(
        recipe, steps=steps, losses=run.losses, prediction=base.prediction,
        precision=run.precision, photos=run.photos,
    )  # fmt: skip
    for number in itertools.count(1):
        path = folder / f"{adapter_stem(name, after, number)}.safetensors"
        if isinstance(recipe.method, LoRA):  # the name by which A1111 and Forge know a LoRA
            metadata[OUTPUT_NAME_KEY] = path.stem
        with suppress(OutputExists):
            _save(path, run, base, metadata)
            return path
    raise AssertionError("unreachable: count is endless")


def _save(path: Path, run: Run, base: BaseModel, metadata: dict[str, str]) -> None:
    recipe, dtype = run.recipe, run.recipe.saving.dtype
    if isinstance(recipe.method, LoRA):
        text_encoder = base.text_encoder if recipe.text_encoder.train else None
        tensors = lora.export(base.unet, text_encoder, recipe.method)
        _check_learned(tensors, run.recipe)
        save_adapter(path, tensors, metadata, dtype)
        return
    if not path.exists():
        # First, so that a checkpoint can be used as soon as it is listed.
        save_tokenizer_beside(path, base.tokenizer)
    save_single_file(
        path,
        unet=base.unet,
        text_encoder=base.text_encoder,
        vae=base.vae,
        dtype=dtype,
        prediction=base.prediction,
        metadata=metadata,
        replace=False,
    )


def _check_learned(tensors: Mapping[str, Tensor], recipe: Recipe) -> None:
    """Raises NothingLearned if a LoRA's change is all 0 as stored; DoRA also scales."""
    dtype = {"fp16": torch.float16, "fp32": torch.float32}[recipe.saving.dtype]
    ups = (tensor for name, tensor in tensors.items() if name.endswith("lora_up.weight"))
    scaled = any(name.endswith("dora_scale") for name in tensors)
    if not scaled and not any(bool(up.to(dtype).any()) for up in ups):
        raise NothingLearned(
            f"Nothing was learned: the LoRA's change is all 0 in {recipe.saving.dtype}, so no file "
            "is saved. The rate was too low so far: raise optimizer.learning_rate, which is "
            f"{recipe.optimizer.learning_rate:g}, or train more steps than "
            "schedule.lr_warmup_steps."
        )


def write_result(run: Run, adapter: Path, steps: int) -> Result:
    """Returns the result of a run whose adapter is saved; also writes `result.json`."""
    result = Result(
        adapter=adapter,
        recipe=run.recipe,
        folder=run.folder.path,
        steps=steps,
        losses=tuple(run.losses),
        seconds=run.seconds,
        notes=tuple(run.notes),
        precision=run.precision,
        peak_memory=run.peak_memory,
        stopped=steps < run.recipe.schedule.steps,
    )
    if run.accelerator.is_main_process:
        run.folder.write_result(result)
        run.emit("saved", path=str(adapter))
    return result
