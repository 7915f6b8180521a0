"""Recipes by name: the study's, and the same scaled down to the miniature of demo/."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .errors import RecipeError
from .recipe import Compute, DreamBooth, LoRA, Optimizer, Prior, Recipe, Subject, TextEncoder

RANKS = (1, 4, 8)
_STUDY_8BIT = Optimizer(name="adamw8bit", learning_rate=2e-6)


def _tiny() -> Recipe:
    return Recipe(
        subject=Subject(resolution=256),
        prior=Prior(prompt="a photo of {class}, random head angle, random smile"),
        method=DreamBooth(),
        text_encoder=TextEncoder(train=False),
        optimizer=_STUDY_8BIT,
        compute=Compute(precision="fp32"),
    )


def _standard() -> Recipe:
    return Recipe(method=DreamBooth(), optimizer=_STUDY_8BIT, compute=Compute(attention="xformers"))


def _lora(rank: int) -> Recipe:
    return Recipe(method=LoRA(rank=rank), compute=Compute(attention="xformers"))


def _miniature(study: Recipe, rate: float, weight: float = 1.0) -> Recipe:
    """A study recipe for the miniature, on a CPU: a quarter of the resolution, other rates.

    So small a model learns nothing at the study's rates; these and the class images' weights come
    from sweeps (docs/sweeps.md). The 800 photographs that the study sees become four in each of
    200 steps. One class prompt is the photographs' without the token, as in DreamBooth
    (arXiv:2208.12242, section 3.2): the study's has other words too, by which a model can tell the
    two apart, so that "a photo of a man" becomes the subject. The other asks for the class in any
    framing: with faces only, all images are close-ups.
    """
    prompts = "a photo of {class} face\na photo of a {class}"
    return study.changed(
        subject={"resolution": study.subject.resolution // 4},
        prior={"count": 192, "prompt": prompts, "loss_weight": weight},
        schedule={"steps": 200, "batch_size": 4},
        optimizer={"name": "adamw", "learning_rate": rate},
        compute={"precision": "fp32", "attention": "sdpa"},
    )


def _miniature_standard() -> Recipe:
    """Decays the learning rate, which improves likeness and prompt fidelity. A higher rate for the
    text encoder trades prompt fidelity for likeness (docs/sweeps.md).
    """
    return _miniature(_standard(), 4.5e-4).changed(
        schedule={"lr_scheduler": "cosine"}, text_encoder={"learning_rate": 8e-4}
    )


def _miniature_lora(rank: int) -> Recipe:
    """Trains all linear layers, as kohya does: attention holds a seventh of the miniature's
    weights, and a LoRA of it alone learned less. At rank 4's rate, rank 1 loses prompt fidelity
    (docs/sweeps.md).
    """
    rate = 1.5e-3 if rank == 1 else 3e-3
    return _miniature(_lora(rank), rate).changed(method={"targets": "linear"})


_PRESETS: dict[str, Callable[[], Recipe]] = {
    "tiny": _tiny,
    "standard": _standard,
    **{f"lora-r{rank}": partial(_lora, rank) for rank in RANKS},
    "miniature-tiny": partial(_miniature, _tiny(), 5e-5, 4.0),
    "miniature-standard": _miniature_standard,
    **{f"miniature-lora-r{rank}": partial(_miniature_lora, rank) for rank in RANKS},
}
PRESETS = tuple(_PRESETS)


def preset(name: str) -> Recipe:
    """A recipe by name, one of PRESETS. Raises RecipeError."""
    if name not in _PRESETS:
        raise RecipeError(f"There is no preset {name!r}; the presets are {', '.join(PRESETS)}.")
    return _PRESETS[name]()
