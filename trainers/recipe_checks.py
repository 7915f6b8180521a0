"""Recipe settings that cannot work as given, rejected before a run. No torch here.

They are not checked when a recipe is read, so that older ones in adapter files stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from .errors import RecipeError
from .memory_tiers import check_memory_field
from .recipe import Prior, Recipe

MIN_PRODIGY_LR = 0.1  # scales the rate that Prodigy estimates; normally 1

# Flags of a line in kohya's files of sample prompts, and the field of `previews` for each.
_KOHYA_FLAGS = {
    "w": "width",
    "h": "height",
    "d": "seed",
    "n": "negative",
    "l": "guidance",
    "g": "guidance",
    "s": "steps",
}
_FLAG = re.compile(rf"(?:^|\s)--([{''.join(_KOHYA_FLAGS)}])(?=\s)")


def check_recipe(recipe: Recipe) -> None:
    """Raises RecipeError, naming the fields, for settings that cannot do what they say."""
    rate, schedule = recipe.optimizer.learning_rate, recipe.schedule
    if recipe.optimizer.name == "prodigy" and rate < MIN_PRODIGY_LR:
        raise RecipeError(
            "optimizer.name 'prodigy' estimates the learning rate itself and multiplies it by "
            f"optimizer.learning_rate, which is {rate:g}: nothing would be learned. Set it to 1."
        )
    if schedule.lr_warmup_steps >= schedule.steps:
        raise RecipeError(
            f"schedule.lr_warmup_steps is {schedule.lr_warmup_steps} and schedule.steps is "
            f"{schedule.steps}: the learning rate would never be reached. Choose fewer warm-up "
            "steps."
        )
    if recipe.prior is not None:
        _check_prior(recipe.prior)
    check_preview_prompts(recipe.previews.prompts)
    check_memory_field(recipe)


def check_preview_prompts(prompts: Sequence[str]) -> None:
    """Raises RecipeError for a prompt with kohya's flags, which would be drawn as words."""
    for prompt in prompts:
        flags = dict.fromkeys(_FLAG.findall(prompt))
        if flags:
            fields = [f"previews.{_KOHYA_FLAGS[flag]} for --{flag}" for flag in flags]
            raise RecipeError(
                f"previews.prompts has flags of kohya's sample prompts, which are read as words "
                f"here: {prompt[:200]!r}. Remove them, and set {', '.join(fields)}, which hold for "
                "all preview prompts (in ComfyUI: preview_width and so on, of Train Options)."
            )


def _check_prior(prior: Prior) -> None:
    """Raises RecipeError for a prior that preserves nothing of the class."""
    if prior.loss_weight == 0:
        raise RecipeError(
            "prior.loss_weight is 0, so prior preservation would have no effect. To train without "
            "it, set prior to null (in ComfyUI: disconnect Class Images)."
        )
    if "{token}" in prior.prompt:
        raise RecipeError(
            "prior.prompt contains {token}: the class would be learned as the subject. Remove it; "
            "{class} stands for the class."
        )


def check_class_images(recipe: Recipe, folder: Path | None) -> None:
    """Raises RecipeError for a folder of class images that the recipe would not use."""
    if folder is None or (recipe.prior is not None and recipe.prior.source == "images"):
        return
    why = "prior is null" if recipe.prior is None else "prior.source is 'teacher'"
    raise RecipeError(
        f"The class images in {folder} would not be used, because {why}: omit --class-images, or "
        "change that setting."
    )


def check_continuation(steps: int, recipe: Recipe, named: str) -> None:
    """Raises RecipeError unless `steps` can be added to the run of the recipe given as `named`.

    Presets and recipes that no run has bound to its files cannot be continued.
    """
    if steps < 1:
        raise RecipeError(f"--more takes the number of steps to add, at least 1, not {steps}.")
    if recipe.base.digest is None:
        raise RecipeError(
            f"--more continues a finished run, and {named} does not name one: give the run folder "
            "or its adapter."
        )
