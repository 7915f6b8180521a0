"""What the trainings read: a model of random weights as a diffusers folder, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from diffusers import DDPMScheduler, StableDiffusionPipeline
from likeness.demo.random_model import write_random_model, write_small_tokenizer
from likeness.trainers.base_model import load_base
from PIL import Image


def write_model(folder: Path, size: Literal["tiny", "full"]) -> Path:
    """A diffusers folder of fp32 weights, with a small vocabulary; one that is there is kept."""
    target = folder / size
    if (target / "model_index.json").is_file():
        return target
    file = write_random_model(folder / f"{size}.safetensors", size=size, dtype="fp32")
    write_small_tokenizer(folder / f"{size}_tokenizer")
    base = load_base(file)
    scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=base.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(target)
    # transformers 5 writes only tokenizer.json; with vocab.json and merges.txt all releases read it
    write_small_tokenizer(target / "tokenizer")
    file.unlink()
    return target


def write_pictures(folder: Path, count: int, size: int, seed: int) -> Path:
    """`count` smooth random PNGs of `size` x `size` pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for index in range(count):
        colours = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        picture = Image.fromarray(colours).resize((size, size), Image.Resampling.BICUBIC)
        picture.save(folder / f"{index}.png")
    return folder
