"""Commands that run the same training with other trainers.

Each trainer's location comes from an environment variable. A builder returns None if the trainer is
missing or does not support the training.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from likeness.trainers.recipe import LoRA, Recipe

from .measure import Command
from .setting import IMAGES, Setting

DIFFUSERS = "LIKENESS_DIFFUSERS_EXAMPLES"  # …/diffusers/examples/dreambooth
KOHYA = "LIKENESS_KOHYA"  # sd-scripts' folder; its Python in LIKENESS_KOHYA_PYTHON
CORE = "COMFYUI_PATH"  # ComfyUI; its Python in COMFYUI_PYTHON

BuildCommand = Callable[[Recipe, Setting, Path], Command | None]


def flags(values: Mapping[str, Any]) -> list[str]:
    """Command-line options: True yields a bare flag, None and False are skipped."""
    words = []
    for name, value in values.items():
        if value is not None and value is not False:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def mixed_precision(precision: str) -> str:
    """accelerate's name of a precision."""
    return "no" if precision == "fp32" else precision


# diffusers' example scripts.


def diffusers_script(recipe: Recipe, setting: Setting, folder: Path) -> Command | None:
    """train_dreambooth_lora.py or train_dreambooth.py."""
    examples = os.environ.get(DIFFUSERS)
    if not examples:
        return None
    lora = isinstance(recipe.method, LoRA)
    options = {
        "pretrained_model_name_or_path": setting.model.folder,
        "instance_data_dir": setting.photos,
        "class_data_dir": setting.class_images,
        "instance_prompt": recipe.instance_prompt(),
        "class_prompt": recipe.class_prompts()[0],
        "num_class_images": IMAGES,
        "with_prior_preservation": True,
        "output_dir": folder / "output",
        "resolution": setting.resolution,
        "center_crop": True,
        "train_batch_size": recipe.schedule.batch_size,
        "max_train_steps": recipe.schedule.steps,
        "learning_rate": recipe.optimizer.learning_rate,
        "lr_scheduler": recipe.schedule.lr_scheduler,
        "lr_warmup_steps": 0,
        "train_text_encoder": recipe.text_encoder.train,
        "use_8bit_adam": recipe.optimizer.name == "adamw8bit",
        "mixed_precision": mixed_precision(setting.precision),
        "checkpointing_steps": 10**9,
        "seed": recipe.seed,
        "rank": recipe.method.rank if isinstance(recipe.method, LoRA) else None,
    }
    script = "train_dreambooth_lora.py" if lora else "train_dreambooth.py"
    return Command([str(Path(examples) / script), *flags(options)])


# kohya's sd-scripts.


def kohya_script(recipe: Recipe, setting: Setting, folder: Path) -> Command | None:
    """train_network.py or train_db.py with cached latents, as its guides recommend.

    Its batches mix photographs and class images, so a batch of two is the same work as our
    photograph plus class image.
    """
    scripts = os.environ.get(KOHYA)
    if not scripts:
        return None
    lora = isinstance(recipe.method, LoRA)
    text = recipe.text_encoder.train
    optimizer = "AdamW8bit" if recipe.optimizer.name == "adamw8bit" else "AdamW"
    options = {
        "pretrained_model_name_or_path": setting.model.checkpoint,
        "tokenizer_cache_dir": _kohya_tokenizer(setting, folder),
        "dataset_config": _kohya_images(recipe, setting, folder),
        "output_dir": folder / "output",
        "output_name": "trained",
        "save_model_as": "safetensors",
        "save_precision": recipe.saving.dtype,
        "resolution": setting.resolution,
        "train_batch_size": 2 * recipe.schedule.batch_size,
        "max_train_steps": recipe.schedule.steps,
        "learning_rate": recipe.optimizer.learning_rate,
        "lr_scheduler": recipe.schedule.lr_scheduler,
        "optimizer_type": optimizer,
        "max_grad_norm": recipe.optimizer.max_grad_norm,
        "mixed_precision": mixed_precision(setting.precision),
        "cache_latents": True,
        "sdpa": True,
        "no_half_vae": True,
        "max_data_loader_n_workers": 0,
        "seed": recipe.seed,
    }
    if isinstance(recipe.method, LoRA):
        options |= {
            "network_module": "networks.lora",
            "network_dim": recipe.method.rank,
            "network_alpha": recipe.method.rank,
            "network_train_unet_only": not text,
        }
    elif not text:
        options["stop_text_encoder_training"] = -1
    script = "train_network.py" if lora else "train_db.py"
    python = os.environ.get("LIKENESS_KOHYA_PYTHON")
    command = Command([str(Path(scripts) / script), *flags(options)])
    return Command(command.arguments, python) if python else command


def _kohya_tokenizer(setting: Setting, folder: Path) -> Path:
    """Copies the small vocabulary to where the scripts look for CLIP's."""
    cache = folder / "tokenizers"
    shutil.copytree(setting.model.tokenizer, cache / "openai_clip-vit-large-patch14")
    return cache


def _kohya_images(recipe: Recipe, setting: Setting, folder: Path) -> Path:
    """Writes the folders and their prompts as the scripts' dataset config, which may be JSON."""
    subsets = [
        {"image_dir": str(setting.photos), "class_tokens": recipe.instance_prompt()},
        {
            "image_dir": str(setting.class_images),
            "class_tokens": recipe.class_prompts()[0],
            "is_reg": True,
        },
    ]
    path = folder / "images.json"
    path.write_text(json.dumps({"datasets": [{"subsets": subsets}]}), encoding="utf-8")
    return path


# ComfyUI's own node.


def core_node(recipe: Recipe, setting: Setting, folder: Path) -> Command | None:
    """TrainLoraNode, which trains a LoRA on the UNet only and does not support class images.

    Uses two photographs per step, for the same work in the UNet, and no gradient checkpointing.
    """
    if not os.environ.get(CORE) or not isinstance(recipe.method, LoRA):
        return None
    from likeness.tools.comfyui import find_comfyui

    comfyui, python = find_comfyui()
    task = {
        "comfyui": str(comfyui),
        "checkpoint": str(setting.model.checkpoint),
        "photos": str(setting.photos),
        "prompt": recipe.instance_prompt(),
        "batch": 2 * recipe.schedule.batch_size,
        "steps": recipe.schedule.steps,
        "learning_rate": recipe.optimizer.learning_rate,
        "rank": recipe.method.rank,
        "precision": setting.precision,
        "output": str(folder / "output.safetensors"),
        "arguments": ["--cpu"] if setting.device == "cpu" else [],
    }
    path = folder / "task.json"
    path.write_text(json.dumps(task), encoding="utf-8")
    return Command([str(Path(__file__).with_name("core_training.py")), str(path)], python)


BASELINES: dict[str, tuple[str, BuildCommand]] = {
    "diffusers' script": (DIFFUSERS, diffusers_script),
    "kohya's script": (KOHYA, kohya_script),
    "core's TrainLoRA": (CORE, core_node),
}
