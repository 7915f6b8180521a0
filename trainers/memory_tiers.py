"""Memory tiers: from the fastest way to train a recipe to the one that needs the least memory.

A plan only: what fits is reckoned from counts of values, so that it can be tried without a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .errors import RecipeError
from .files import write_atomic
from .recipe import DreamBooth, Recipe

TierName = Literal["full", "checkpointing", "8bit", "in_backward"]


@dataclass(frozen=True)
class Tier:
    """One way to train. Each tier below another needs less memory and more time."""

    name: TierName
    description: str
    checkpointing: bool = False
    eight_bit: bool = False
    in_backward: bool = False  # each weight is updated as soon as its gradient is there


FULL = Tier("full", "full speed")
CHECKPOINTING = Tier(
    "checkpointing", "activations are computed again in the backward pass", checkpointing=True
)
EIGHT_BIT = Tier(
    "8bit",
    "as before, and the optimizer keeps its state in 8 bits",
    checkpointing=True,
    eight_bit=True,
)
IN_BACKWARD = Tier(
    "in_backward",
    "as before, and each weight is updated in the backward pass, so that no gradients are kept",
    checkpointing=True,
    eight_bit=True,
    in_backward=True,
)
TIERS = (FULL, CHECKPOINTING, EIGHT_BIT, IN_BACKWARD)


@dataclass(frozen=True)
class Machine:
    """What decides which tiers a run can take."""

    precision: str  # fp32, bf16 or fp16, as the device can compute
    has_bf16: bool
    processes: int
    bitsandbytes: bool


@dataclass(frozen=True)
class ModelSize:
    """What a step holds.

    `trained` and `unet` are counts of values, `largest` that of the largest trained tensor;
    `pixels` counts the latents' pixels of all samples of a micro-batch, and `prompts` those that
    go through a text encoder that learns.
    """

    trained: int
    largest: int
    unet: int
    pixels: int
    prompts: int


def unsuitable_reason(tier: Tier, recipe: Recipe) -> str | None:
    """Why a tier is not for this recipe on any machine, or None."""
    if not tier.checkpointing and recipe.compute.gradient_checkpointing:
        return "compute.gradient_checkpointing is on"
    if tier.eight_bit and not isinstance(recipe.method, DreamBooth):
        return "a LoRA's optimizer has next to no state"
    if tier.eight_bit and recipe.optimizer.name == "prodigy":
        return "Prodigy needs all gradients together, in fp32"
    if tier is EIGHT_BIT and recipe.optimizer.name == "adamw8bit":
        return "the recipe's optimizer is in 8 bits already: choose checkpointing"
    if not tier.in_backward:
        return None
    if recipe.schedule.accumulation > 1:
        return "schedule.accumulation needs gradients that are kept"
    if recipe.subject.buckets:
        return "subject.buckets can split a step into several backward passes"
    if recipe.compute.compile:
        return "compute.compile gives all gradients together"
    return None


def unavailable_reason(tier: Tier, recipe: Recipe, machine: Machine) -> str | None:
    """Why a tier is not for this recipe on this machine, or None."""
    if (reason := unsuitable_reason(tier, recipe)) is not None:
        return reason
    if tier.eight_bit and not machine.bitsandbytes:
        return "8-bit Adam (bitsandbytes) is not installed, or does not work on this machine"
    if not tier.in_backward:
        return None
    if machine.processes > 1:
        return "several processes average gradients that are kept"
    if machine.precision == "fp16" and not machine.has_bf16:
        return "fp16 scales gradients that are kept, and this device has no bf16"
    return None


def available(recipe: Recipe, machine: Machine) -> list[Tier]:
    """The tiers to choose from, the fastest first: one if the recipe names it.

    Raises RecipeError if it names one that is not for it.
    """
    if recipe.compute.memory == "auto":
        return [tier for tier in TIERS if unavailable_reason(tier, recipe, machine) is None]
    tier = tier_by_name(recipe.compute.memory)
    _check(tier, unavailable_reason(tier, recipe, machine))
    return [tier]


def check_memory_field(recipe: Recipe) -> None:
    """Raises RecipeError if the recipe names a tier that is not for it on any machine."""
    if recipe.compute.memory != "auto":
        tier = tier_by_name(recipe.compute.memory)
        _check(tier, unsuitable_reason(tier, recipe))


def _check(tier: Tier, reason: str | None) -> None:
    if reason is not None:
        raise RecipeError(
            f"compute.memory {tier.name!r} cannot be used: {reason}. Choose another, or 'auto'."
        )


def tier_by_name(name: str) -> Tier:
    """The tier of a name. Raises StopIteration for another name."""
    return next(tier for tier in TIERS if tier.name == name)


# Bytes that a micro-batch of SD 1.5 keeps for the backward pass, for each pixel of its latents
# (64 a side at 512 pixels): counted with saved_tensors_hooks on diffusers 0.42, for 16 bits with
# CUDA's autocast, which normalises in fp32.
_ACTIVATION_BYTES = 300_000
_CHECKPOINTED_BYTES = 40_000 + 80_000  # the blocks' inputs, and the largest block once more
_PROMPT_ACTIVATION_BYTES = 50_000_000
_SD15_UNET = 860_000_000
_OPTIMIZER_STATE_BYTES = {
    "adamw": 8,
    "adamw8bit": 2,
    "prodigy": 16,
}  # bytes of optimizer state a value
_MARGIN, _LIBRARY_BYTES = (
    1.1,
    500_000_000,
)  # what allocators lose, and what libraries take for themselves


def estimate_memory(tier: Tier, recipe: Recipe, precision: str, size: ModelSize) -> int:
    """Bytes that training takes beside the weights as they are loaded: an estimate, rounded up."""
    half = precision != "fp32"
    whole = isinstance(recipe.method, DreamBooth)
    total = minimum_memory(tier, recipe, size)
    if half and whole and not tier.checkpointing:
        total += 2 * size.trained  # autocast's copies, kept until the backward pass
    if recipe.objective.ema_decay:
        total += 4 * size.trained
    kept = _CHECKPOINTED_BYTES if tier.checkpointing else _ACTIVATION_BYTES
    # Activations grow with the UNet's width, weights with its square.
    width = min(1.0, (size.unet / _SD15_UNET) ** 0.5)
    kept_bytes = (kept * size.pixels * width + _PROMPT_ACTIVATION_BYTES * size.prompts) * (
        1 if half else 2
    )
    return round((total + kept_bytes) * _MARGIN + _LIBRARY_BYTES * width)


def minimum_memory(tier: Tier, recipe: Recipe, size: ModelSize) -> int:
    """Bytes of the optimizer's state and of the gradients alone: no run can do with less."""
    optimizer = "adamw8bit" if tier.eight_bit else recipe.optimizer.name
    gradients = size.largest if tier.in_backward else size.trained
    return _OPTIMIZER_STATE_BYTES[optimizer] * size.trained + 4 * gradients


def no_fit_reason(recipe: Recipe, machine: Machine, size: ModelSize, free: int) -> str | None:
    """Why no tier can fit into `free` bytes, and what would; None where one may."""
    taken = [minimum_memory(tier, recipe, size) for tier in available(recipe, machine)]
    if min(taken) <= free:
        return None
    text = (
        f"{free / 1e9:.1f} GB of memory are free beside the model. Gradients and the optimizer's "
        f"state alone take {min(taken) / 1e9:.1f} GB in the memory tier with the least."
    )
    able = replace(machine, bitsandbytes=True)
    if not machine.bitsandbytes and no_fit_reason(recipe, able, size, free) is None:
        needs = min(
            estimate_memory(tier, recipe, machine.precision, size)
            for tier in available(recipe, able)
        )
        return (
            f"{text} With 8-bit Adam training takes about {needs / 1e9:.1f} GB: install "
            "bitsandbytes into the Python that ComfyUI uses, or train a LoRA."
        )
    return f"{text} Free some memory, or train a LoRA."


def select_tier(
    tiers: Sequence[Tier], recipe: Recipe, precision: str, size: ModelSize, free: int
) -> tuple[Tier, str | None]:
    """The fastest tier that fits into `free` bytes, else the last; a note if not the first."""
    for tier in tiers:
        if estimate_memory(tier, recipe, precision, size) <= free:
            break
    if tier is tiers[0]:
        return tier, None
    wanted = estimate_memory(tiers[0], recipe, precision, size)
    return tier, (
        f"{free / 1e9:.1f} GB of memory are free, and training at {tiers[0].description} takes "
        f"about {wanted / 1e9:.1f} GB beside the model: memory tier {tier.name!r}, "
        f"{tier.description}. compute.memory {tiers[0].name!r} tries it all the same."
    )


def is_state_compatible(tier: Tier, other: Tier, recipe: Recipe) -> bool:
    """Whether the optimizer of one tier goes on with the state of the other's."""
    return tier.eight_bit == other.eight_bit or recipe.optimizer.name == "adamw8bit"


def incompatible_state_message(before: Tier, recipe: Recipe) -> str:
    """What to say where no tier that a run can take goes on with the state of tier `before`."""
    if recipe.compute.memory != "auto":
        said = (
            f"compute.memory {recipe.compute.memory!r} keeps another optimizer's state than the "
            f"checkpoint that this run goes on from, which memory tier {before.name!r} saved. "
            f"Choose compute.memory {before.name!r} or 'auto'"
        )
    else:
        said = (
            f"The checkpoint that this run goes on from was saved in memory tier {before.name!r}, "
            "by 8-bit Adam, and bitsandbytes is not installed any more, or does not work. Install "
            "it to go on: pip install --upgrade bitsandbytes"
        )
    anew = "clear continues" if recipe.continues else "raise attempt"
    return f"{said}; or {anew} to train from the start."


def next_lower_tier(tier: Tier, tiers: Sequence[Tier]) -> Tier | None:
    """The next tier that needs less memory, or None."""
    later = list(tiers)[list(tiers).index(tier) + 1 :] if tier in tiers else []
    return later[0] if later else None


# With a run.


def load_tier(file: Path) -> Tier | None:
    """The tier that a run took before, or None."""
    try:
        return tier_by_name(json.loads(file.read_text(encoding="utf-8"))["tier"])
    except (OSError, ValueError, LookupError, TypeError, StopIteration, RecursionError):
        return None


def save_tier(file: Path, tier: Tier) -> None:
    """Keeps a run's tier, so that it goes on in it."""
    write_atomic(file, json.dumps({"version": 1, "tier": tier.name}))
