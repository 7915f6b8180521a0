"""What a recipe alone tells could not be trained as it says. No torch here.

Checked before a run and not as a recipe is read: older ones in adapter files stay readable.
"""

from __future__ import annotations

from pathlib import Path

from .errors import RecipeError
from .memory_tiers import check_memory_field
from .recipe import Prior, Recipe

MIN_PRODIGY_LR = 0.1  # it multiplies the rate that Prodigy finds, meant to be 1


def check_recipe(recipe: Recipe) -> None:
    """Raises RecipeError, which names the fields, for settings that cannot do what they say."""
    rate, schedule = recipe.optimizer.learning_rate, recipe.schedule
    if recipe.optimizer.name == "prodigy" and rate < MIN_PRODIGY_LR:
        raise RecipeError(
            "optimizer.name 'prodigy' finds the learning rate by itself and multiplies it by "
            f"optimizer.learning_rate, which is {rate:g}: nothing would be learned. Set it to 1."
        )
    if schedule.warmup >= schedule.steps:
        raise RecipeError(
            f"schedule.warmup is {schedule.warmup} and schedule.steps {schedule.steps}: the "
            "learning rate would never be reached. Choose a warmup below the steps."
        )
    if recipe.prior is not None:
        _check_prior(recipe.prior)
    check_memory_field(recipe)


def _check_prior(prior: Prior) -> None:
    """Raises RecipeError for a prior that keeps nothing of the class."""
    if prior.weight == 0:
        raise RecipeError(
            "prior.weight is 0: all that is done for the class would count nothing. To train "
            "without prior preservation, set prior to null (in ComfyUI: take Class Images away)."
        )
    if "{token}" in prior.prompt:
        raise RecipeError(
            "prior.prompt holds {token}: the class would be kept as the subject. Take it out; "
            "{class} stands for the class."
        )


def check_class_images(recipe: Recipe, folder: Path | None) -> None:
    """Raises RecipeError for a folder of class images of which the recipe would use none."""
    if folder is None or (recipe.prior is not None and recipe.prior.source == "images"):
        return
    why = "prior is null" if recipe.prior is None else "prior.source is 'teacher'"
    raise RecipeError(
        f"The class images in {folder} would not be used, for {why}: leave --class-images out, or "
        "change that."
    )


def check_continuation(steps: int, recipe: Recipe, named: str) -> None:
    """Raises RecipeError unless `steps` can be added to the run of a recipe that is called `named`:
    not of a preset, nor of a recipe that no run has bound to its files.
    """
    if steps < 1:
        raise RecipeError(f"--more takes steps to add, at least 1, not {steps}.")
    if recipe.base.digest is None:
        raise RecipeError(
            f"--more goes on from a finished run, and {named} names none: give the run's folder or "
            "its adapter."
        )
