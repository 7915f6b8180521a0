"""The recipes of the study, by name."""

from __future__ import annotations

from .errors import RecipeError
from .recipe import Compute, DreamBooth, LoRA, Optimizer, Prior, Recipe, Subject, TextEncoder

_STUDY_8BIT = Optimizer(name="adamw8bit", learning_rate=2e-6)


def preset(name: str) -> Recipe:
    """A recipe of the study: tiny, standard, lora-r1, lora-r4 or lora-r8. Raises RecipeError."""
    presets = {
        "tiny": Recipe(
            subject=Subject(resolution=256),
            prior=Prior(prompt="a photo of {class}, random head angle, random smile"),
            method=DreamBooth(),
            text_encoder=TextEncoder(train=False),
            optimizer=_STUDY_8BIT,
            compute=Compute(precision="fp32"),
        ),
        "standard": Recipe(
            method=DreamBooth(), optimizer=_STUDY_8BIT, compute=Compute(attention="xformers")
        ),
        **{
            f"lora-r{rank}": Recipe(method=LoRA(rank=rank), compute=Compute(attention="xformers"))
            for rank in (1, 4, 8)
        },
    }
    if name not in presets:
        raise RecipeError(f"There is no preset {name!r}; the presets are {', '.join(presets)}.")
    return presets[name]
