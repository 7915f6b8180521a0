"""Writes the sides' inputs: models with random weights, LoRAs, and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

Size = Literal["tiny", "full"]
RANK = 4
# SD 1.5's noise schedule, which pipelines sample with and the scripts train with.
_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True)
class Model:
    """One model in two formats: a diffusers folder and a checkpoint with LDM names; fp32."""

    folder: Path
    checkpoint: Path

    @property
    def tokenizer(self) -> Path:
        """The folder of their small vocabulary."""
        return self.folder / "tokenizer"


def write_model(folder: Path, size: Size) -> Model:
    """Writes a model with random weights and a small vocabulary, unless it exists."""
    model = Model(folder / size, folder / f"{size}.safetensors")
    if not (model.folder / "model_index.json").is_file() or not model.checkpoint.is_file():
        _write_both(model, size)
    return model


def _write_both(model: Model, size: Size) -> None:
    from diffusers import DDPMScheduler, StableDiffusionPipeline
    from likeness.demo.random_model import write_random_model, write_small_tokenizer
    from likeness.trainers.base_model import load_base

    write_random_model(model.checkpoint, size=size, dtype="fp32")
    write_small_tokenizer(model.checkpoint.with_name(f"{model.checkpoint.stem}_tokenizer"))
    base = load_base(model.checkpoint)
    StableDiffusionPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=base.unet,
        scheduler=DDPMScheduler(clip_sample=False, steps_offset=1, **_SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(model.folder)
    # transformers 5 saves only tokenizer.json; all releases read vocab.json and merges.txt
    write_small_tokenizer(model.tokenizer)


def write_images(folder: Path, count: int, size: int, seed: int, suffix: str = "png") -> Path:
    """Writes `count` smooth random images of `size` x `size` pixels; keeps existing ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = folder / f"{index}.{suffix}"
        if not path.is_file():
            random = np.random.default_rng([seed, index])
            colours = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            image = Image.fromarray(colours).resize((size, size), Image.Resampling.BICUBIC)
            image.save(path)
    return folder


def unet_shapes(checkpoint: Path) -> Mapping[str, tuple[int, int]]:
    """(outputs, inputs) of the attention layers in a checkpoint's UNet, by diffusers names."""
    from accelerate import init_empty_weights
    from diffusers import UNet2DConditionModel
    from likeness.trainers import ldm_names
    from likeness.trainers.base_file import read_shapes

    shapes = ldm_names.part(read_shapes(checkpoint), ldm_names.UNET)
    with init_empty_weights():
        unet = UNet2DConditionModel(**ldm_names.unet_config(shapes))
    return {
        name: tuple(module.weight.shape)
        for name, module in unet.named_modules()
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))
    }


def write_lora(path: Path, checkpoint: Path, seed: int) -> Path:
    """Writes a random LoRA for the attention of a checkpoint's UNet, with kohya's names."""
    import torch
    from likeness.trainers.adapter_names import module_name
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (outputs, inputs) in unet_shapes(checkpoint).items():
        for part, shape in (("down", (RANK, inputs)), ("up", (outputs, RANK))):
            values = torch.randn(shape, generator=generator) * 0.02
            tensors[f"{module_name('unet', name)}.lora_{part}.weight"] = values.half()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path
