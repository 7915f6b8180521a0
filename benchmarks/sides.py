"""The trainings that are compared, and how each side is asked for the same one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from likeness.trainers.places import Places
from likeness.trainers.presets import preset
from likeness.trainers.recipe import LoRA, Recipe

CASES = ("lora", "lora-frozen-text", "dreambooth")
PICTURES = 4  # photographs, and as many class images
SCRIPTS = {"lora": "train_dreambooth_lora.py", "dreambooth": "train_dreambooth.py"}
VARIABLE = "LIKENESS_DIFFUSERS_EXAMPLES"


@dataclass(frozen=True)
class Setting:
    """What is the same for all trainings of one benchmark."""

    model: Path  # a diffusers folder
    photos: Path
    class_images: Path
    resolution: int
    steps: int
    precision: str
    optimizer: str


def recipe_of(case: str, setting: Setting) -> Recipe:
    """The study's recipe of a case, at the setting's size."""
    recipe = preset("standard" if case == "dreambooth" else "lora-r4")
    return recipe.changed(
        name="bench",
        subject={"resolution": setting.resolution},
        prior={"count": PICTURES},
        text_encoder={"train": case != "lora-frozen-text"},
        schedule={"steps": setting.steps},
        optimizer={"name": setting.optimizer},
        compute={"attention": "sdpa", "precision": setting.precision},
    )


def our_arguments(recipe: Recipe, setting: Setting, folder: Path) -> list[str]:
    """Arguments of `child.py` for ours; writes the recipe and the places into `folder`."""
    places = Places(
        base=setting.model,
        photos=setting.photos,
        class_images=setting.class_images,
        runs=folder / "runs",
        loras=folder / "loras",
        checkpoints=folder / "checkpoints",
        cache=folder / "cache",
    )
    (folder / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")
    (folder / "places.json").write_text(places.model_dump_json(), encoding="utf-8")
    return ["likeness", str(folder / "recipe.json"), str(folder / "places.json")]


def script_arguments(recipe: Recipe, setting: Setting, folder: Path) -> list[str] | None:
    """Arguments of `child.py` for diffusers' script; None where its folder is not given."""
    examples = os.environ.get(VARIABLE)
    if not examples:
        return None
    values = {
        "pretrained_model_name_or_path": setting.model,
        "instance_data_dir": setting.photos,
        "class_data_dir": setting.class_images,
        "instance_prompt": recipe.instance_prompt(),
        "class_prompt": recipe.class_prompt(),
        "num_class_images": PICTURES,
        "output_dir": folder / "output",
        "resolution": setting.resolution,
        "train_batch_size": recipe.schedule.batch,
        "max_train_steps": setting.steps,
        "learning_rate": recipe.optimizer.learning_rate,
        "lr_scheduler": recipe.schedule.course,
        "lr_warmup_steps": 0,
        "mixed_precision": "no" if setting.precision == "fp32" else setting.precision,
        "checkpointing_steps": 10**9,
        "seed": 0,
    }
    switches = {
        "with_prior_preservation": True,
        "center_crop": True,
        "train_text_encoder": recipe.text_encoder.train,
        "use_8bit_adam": setting.optimizer == "adamw8bit",
    }
    if isinstance(recipe.method, LoRA):
        values["rank"] = recipe.method.rank
    flags = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    flags += [f"--{name}" for name, on in switches.items() if on]
    return [str(Path(examples) / SCRIPTS[recipe.method.kind]), *flags]
