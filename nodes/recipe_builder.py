"""Builds a recipe from node values. Does not import ComfyUI."""

from __future__ import annotations

from typing import Any

from torch import cuda

from ..trainers.packages import eight_bit_unavailable_reason, is_installed, require_packages
from ..trainers.recipe import Prior, Recipe, Subject, recipe_from_data, without_caption
from .values import TrainOptions

AUTO = "auto"  # keeps a saved workflow usable where an optional package is not installed


def resolve_optimizer(name: str, device: str) -> str:
    """`name`; for "auto", the study's 8-bit Adam on a CUDA GPU with a usable bitsandbytes, else
    AdamW. `device` is "cpu" if the GPU must not be used, or "auto".
    """
    if name != AUTO:
        return name
    gpu = device != "cpu" and cuda.is_available()  # on a CPU 8-bit Adam is five times slower
    return "adamw8bit" if gpu and not eight_bit_unavailable_reason() else "adamw"


def resolve_attention(name: str) -> str:
    """`name`; for "auto", the study's xformers if installed, else PyTorch's own."""
    if name != AUTO:
        return name
    return "xformers" if is_installed("xformers") else "sdpa"


def check_packages(**parts: dict[str, Any]) -> None:
    """Raises MissingPackage if these recipe parts need a package that is not installed.

    Raises RecipeError for an invalid value.
    """
    plain: dict[str, Any] = {"optimizer": {"name": "adamw"}, **parts}
    require_packages(Recipe().changed(**plain))


def build_recipe(
    subject: Subject,
    prior: Prior | None,
    options: TrainOptions | None,
    *,
    method: dict[str, Any],
    name: str,
    steps: int,
    learning_rate: float,
    batch_size: int,
    train_text_encoder: bool,
    precision: str,
    optimizer: str,
    preview_every: int,
    seed: int,
    attempt: int = 0,
    device: str = "auto",
) -> Recipe:
    """A train node's recipe for a `device`. Raises RecipeError, which names each wrong field."""
    options = options or TrainOptions()
    chosen: dict[str, dict[str, Any]] = {
        "schedule": {"steps": steps, "batch_size": batch_size},
        "optimizer": {
            "name": resolve_optimizer(optimizer, device),
            "learning_rate": learning_rate,
        },
        "text_encoder": {"train": train_text_encoder},
        "compute": {"attention": resolve_attention(AUTO), "precision": precision},
        "previews": {"every": preview_every},
    }
    parts = {
        part: {**chosen.get(part, {}), **options.parts.get(part, {})}
        for part in {*chosen, *options.parts}
    }
    return recipe_from_data(
        {
            "name": name,
            "subject": subject.model_dump(mode="json"),
            "prior": prior and prior.model_dump(mode="json"),
            "method": method,
            "validate_every": options.validate_every,
            "continues": options.continues,
            "seed": seed,
            "attempt": attempt,
            **parts,
            "previews": _previews(subject, parts["previews"]),
        }
    )


def _previews(subject: Subject, chosen: dict[str, Any]) -> dict[str, Any]:
    """The chosen preview settings; prompt and size default to those of the photographs."""
    prompts = chosen.get("prompts")
    if not prompts:
        prompts = [without_caption(subject.prompt)] if chosen["every"] else []
    return {
        **chosen,
        "prompts": prompts,
        "width": chosen.get("width") or subject.resolution,
        "height": chosen.get("height") or subject.resolution,
    }
