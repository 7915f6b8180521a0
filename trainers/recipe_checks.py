"""What a recipe alone tells could not be trained as it says. No torch here.

Checked before a run and not as a recipe is read: older ones in adapter files stay readable.
"""

from __future__ import annotations

from .errors import RecipeError
from .recipe import Recipe
from .tiers import check_named

LEAST_PRODIGY_RATE = 0.1  # it multiplies the rate that Prodigy finds, meant to be 1


def check_recipe(recipe: Recipe) -> None:
    """Raises RecipeError, which names the fields, for settings that cannot do what they say."""
    rate, schedule = recipe.optimizer.learning_rate, recipe.schedule
    if recipe.optimizer.name == "prodigy" and rate < LEAST_PRODIGY_RATE:
        raise RecipeError(
            "optimizer.name 'prodigy' finds the learning rate by itself and multiplies it by "
            f"optimizer.learning_rate, which is {rate:g}: nothing would be learned. Set it to 1."
        )
    if schedule.warmup >= schedule.steps:
        raise RecipeError(
            f"schedule.warmup is {schedule.warmup} and schedule.steps {schedule.steps}: the "
            "learning rate would never be reached. Choose a warmup below the steps."
        )
    check_named(recipe)


def check_more(steps: int, recipe: Recipe, named: str) -> None:
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
