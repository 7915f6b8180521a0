"""The trainings to compare, and the settings that all sides share."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likeness.trainers.places import Places
from likeness.trainers.presets import preset
from likeness.trainers.recipe import Recipe

from .inputs import Model, write_images, write_model
from .measure import WARM_UP, Command

# Case -> preset. The study's tiny DreamBooth has half the resolution.
CASES = {
    "lora": "lora-r4",
    "lora-frozen-text": "lora-r4",
    "dreambooth": "standard",
    "tiny": "tiny",
}
IMAGES = 4  # photographs, and as many class images


@dataclass(frozen=True)
class Setting:
    """The settings that all sides of a training share."""

    model: Model
    photos: Path
    class_images: Path
    resolution: int
    steps: int
    precision: str
    optimizer: str
    device: str


def setting_of(
    args: argparse.Namespace, folder: Path, precision: str, case: str = "lora"
) -> Setting:
    """The setting of a case; writes model and images to `folder` unless they exist."""
    side = args.resolution // 2 if case == "tiny" else args.resolution
    return Setting(
        model=write_model(folder, args.size),
        photos=write_images(folder / f"photos-{side}", IMAGES, side, seed=0),
        class_images=write_images(folder / f"class-{side}", IMAGES, side, seed=1),
        resolution=side,
        steps=args.steps + WARM_UP + 1,
        precision=precision,
        optimizer=args.optimizer,
        device=args.device,
    )


def recipe_of(case: str, setting: Setting) -> Recipe:
    """The study's recipe of a case, at the setting's size."""
    recipe = preset(CASES[case])
    text = {"train": False} if case == "lora-frozen-text" else {}
    return recipe.changed(
        name="bench",
        subject={"resolution": setting.resolution},
        prior={"count": IMAGES},
        text_encoder=text,
        schedule={"steps": setting.steps},
        optimizer={"name": setting.optimizer},
        compute={"attention": "sdpa", "precision": setting.precision},
    )


def our_command(
    recipe: Recipe, setting: Setting, folder: Path, *options: str, **places: Any
) -> Command:
    """The command of our training; writes recipe and places to `folder`. `places` override."""
    paths = {
        "base": setting.model.folder,
        "photos": setting.photos,
        "class_images": setting.class_images,
        "runs": folder / "runs",
        "loras": folder / "loras",
        "checkpoints": folder / "checkpoints",
        "cache": folder / "cache",
    }
    (folder / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")
    (folder / "places.json").write_text(Places(**paths | places).model_dump_json())
    files = [str(folder / "recipe.json"), str(folder / "places.json")]
    return Command(["likeness", *files, *options], ours=True)
