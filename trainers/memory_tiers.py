"""Memory tiers: from the fastest way to train a recipe to the one that needs the least memory.

Planning only: what fits is estimated from parameter counts, so that it can be tested without a GPU.
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

TierName = Literal["full", "checkpointing", "8bit", "in_backward", "offload"]


@dataclass(frozen=True)
class Tier:
    """One way to train. Each lower tier needs less memory and more time."""

    name: TierName
    description: str
    checkpointing: bool = False
    eight_bit: bool = False
    in_backward: bool = False  # each weight is updated as soon as its gradient is computed
    text_encoder_on_cpu: bool = False


FULL = Tier("full", "full speed")
CHECKPOINTING = Tier(
    "checkpointing", "activations recomputed in the backward pass", checkpointing=True
)
EIGHT_BIT = Tier(
    "8bit",
    "activations recomputed in the backward pass, and optimizer state in 8 bits",
    checkpointing=True,
    eight_bit=True,
)
IN_BACKWARD = Tier(
    "in_backward",
    "activations recomputed and weights updated in the backward pass, so that no gradients are "
    "kept, and optimizer state in 8 bits",
    checkpointing=True,
    eight_bit=True,
    in_backward=True,
)
OFFLOAD = replace(
    IN_BACKWARD,
    name="offload",
    description=f"{IN_BACKWARD.description}; the text encoder is trained on the CPU, more slowly",
    text_encoder_on_cpu=True,
)
TIERS = (FULL, CHECKPOINTING, EIGHT_BIT, IN_BACKWARD, OFFLOAD)


@dataclass(frozen=True)
class Machine:
    """What a machine offers: with the recipe it decides which tiers a run can use."""

    precision: str  # fp32, bf16 or fp16, as the device supports
    has_bf16: bool
    processes: int
    bitsandbytes: bool
    cpu_8bit_adam: bool  # beside a GPU


@dataclass(frozen=True)
class ModelSize:
    """The sizes that determine a step's memory.

    `trained` and `unet` are parameter counts, `text` counts those trained in the text encoder and
    `largest` those of the largest trained tensor; `pixels` counts the latent pixels of all samples
    of a micro-batch, and `chunks` the chunks of its prompts that pass through a trained text
    encoder.
    """

    trained: int
    text: int
    largest: int
    unet: int
    pixels: int
    chunks: int


def unsuitable_reason(tier: Tier, recipe: Recipe) -> str | None:
    """Why no machine can train this recipe in a tier, or None."""
    if not tier.checkpointing and recipe.compute.gradient_checkpointing:
        return "compute.gradient_checkpointing is on"
    if tier.eight_bit and not isinstance(recipe.method, DreamBooth):
        return "a LoRA's optimizer has next to no state"
    if tier.eight_bit and recipe.optimizer.name == "prodigy":
        return "Prodigy needs all gradients at once, in fp32"
    if tier is EIGHT_BIT and recipe.optimizer.name == "adamw8bit":
        return "optimizer.name adamw8bit is in 8 bits already, so 'checkpointing' does the same"
    if tier.text_encoder_on_cpu and not recipe.text_encoder.train:
        return "text_encoder.train is off"
    if not tier.in_backward:
        return None
    if recipe.schedule.gradient_accumulation_steps > 1:
        return "schedule.gradient_accumulation_steps needs gradients to be kept"
    if recipe.subject.buckets:
        return "subject.buckets can split a step into several backward passes"
    if recipe.compute.compile:
        return "compute.compile computes all gradients at once"
    return None


def unavailable_reason(tier: Tier, recipe: Recipe, machine: Machine) -> str | None:
    """Why this machine cannot train this recipe in a tier, or None."""
    if (reason := unsuitable_reason(tier, recipe)) is not None:
        return reason
    if tier.eight_bit and not machine.bitsandbytes:
        return "8-bit Adam (bitsandbytes) is not installed, or does not work on this machine"
    if tier.text_encoder_on_cpu and not machine.cpu_8bit_adam:
        return "it needs a GPU to train the UNet on, and a bitsandbytes that works on the CPU too"
    if not tier.in_backward:
        return None
    if machine.processes > 1:
        return "several processes need gradients to be kept, to average them"
    if machine.precision == "fp16" and not machine.has_bf16:
        return "fp16 loss scaling needs gradients to be kept, and this device has no bf16"
    return None


def available(recipe: Recipe, machine: Machine) -> list[Tier]:
    """The tiers to choose from, fastest first; only the one that the recipe names, if any.

    Raises RecipeError if that one cannot be used.
    """
    if recipe.compute.memory == "auto":
        return [tier for tier in TIERS if unavailable_reason(tier, recipe, machine) is None]
    tier = tier_by_name(recipe.compute.memory)
    _check(tier, unavailable_reason(tier, recipe, machine))
    return [tier]


def check_memory_field(recipe: Recipe) -> None:
    """Raises RecipeError if the recipe names a tier that no machine can train it in."""
    if recipe.compute.memory != "auto":
        tier = tier_by_name(recipe.compute.memory)
        _check(tier, unsuitable_reason(tier, recipe))


def _check(tier: Tier, reason: str | None) -> None:
    if reason is not None:
        raise RecipeError(
            f"compute.memory {tier.name!r} cannot be used: {reason}. Choose another, or 'auto'."
        )


def tier_by_name(name: str) -> Tier:
    """The tier with this name. Raises StopIteration if there is none."""
    return next(tier for tier in TIERS if tier.name == name)


# Bytes that a micro-batch of SD 1.5 saves for the backward pass, per latent pixel (64 x 64 at 512
# pixels): counted with saved_tensors_hooks on diffusers 0.42, for 16 bits under CUDA's autocast,
# which normalises in fp32.
_ACTIVATION_BYTES = 300_000
_CHECKPOINTED_BYTES = 40_000 + 80_000  # block inputs, and the largest block recomputed
_PROMPT_ACTIVATION_BYTES = 50_000_000
_SD15_UNET = 860_000_000
_OPTIMIZER_STATE_BYTES = {"adamw": 8, "adamw8bit": 2, "prodigy": 16}  # per parameter
_MARGIN = 1.1  # allocator overhead
_LIBRARY_BYTES = 500_000_000  # taken by libraries


def estimate_memory(tier: Tier, recipe: Recipe, precision: str, size: ModelSize) -> int:
    """Estimate, rounded up, of the bytes that training takes beside the loaded weights."""
    half = precision != "fp32"
    whole = isinstance(recipe.method, DreamBooth)
    total = minimum_memory(tier, recipe, size)
    chunks = 0 if tier.text_encoder_on_cpu else size.chunks
    if half and whole and not tier.checkpointing:
        total += 2 * size.trained  # autocast's copies, kept until the backward pass
    on_cpu = size.text if tier.text_encoder_on_cpu else 0
    if recipe.objective.ema_decay:
        total += 4 * (size.trained - on_cpu)
    per_pixel = _CHECKPOINTED_BYTES if tier.checkpointing else _ACTIVATION_BYTES
    # Activations grow with the UNet's width, weights with its square.
    width = min(1.0, (size.unet / _SD15_UNET) ** 0.5)
    activations = per_pixel * size.pixels * width + _PROMPT_ACTIVATION_BYTES * chunks
    activations *= 1 if half else 2
    freed = 4 * on_cpu  # weights that leave the GPU
    return round((total + activations) * _MARGIN + _LIBRARY_BYTES * width) - freed


def minimum_memory(tier: Tier, recipe: Recipe, size: ModelSize) -> int:
    """Bytes of optimizer state and gradients alone, the least that a run can need."""
    optimizer = "adamw8bit" if tier.eight_bit else recipe.optimizer.name
    on_cpu = size.text if tier.text_encoder_on_cpu else 0
    gradients = size.largest if tier.in_backward else size.trained
    return _OPTIMIZER_STATE_BYTES[optimizer] * (size.trained - on_cpu) + 4 * gradients


def no_fit_reason(recipe: Recipe, machine: Machine, size: ModelSize, free: int) -> str | None:
    """Why no tier can fit into `free` bytes, and what would help; None if one may fit."""
    needed = [minimum_memory(tier, recipe, size) for tier in available(recipe, machine)]
    if min(needed) <= free:
        return None
    text = (
        f"{free / 1e9:.1f} GB of memory are free beside the model, but gradients and optimizer "
        f"state alone take {min(needed) / 1e9:.1f} GB, even in the lowest memory tier."
    )
    able = replace(machine, bitsandbytes=True, cpu_8bit_adam=True)
    if not machine.bitsandbytes and no_fit_reason(recipe, able, size, free) is None:
        needs = min(
            estimate_memory(tier, recipe, machine.precision, size)
            for tier in available(recipe, able)
        )
        return (
            f"{text} With 8-bit Adam, training takes about {needs / 1e9:.1f} GB: install "
            "bitsandbytes into the Python that ComfyUI uses, or train a LoRA."
        )
    return f"{text} Free some memory, or train a LoRA."


def select_tier(
    tiers: Sequence[Tier], recipe: Recipe, precision: str, size: ModelSize, free: int
) -> tuple[Tier, str | None]:
    """The fastest tier that fits into `free` bytes, else the last; with a note unless the first."""
    for tier in tiers:
        if estimate_memory(tier, recipe, precision, size) <= free:
            break
    if tier is tiers[0]:
        return tier, None
    wanted = estimate_memory(tiers[0], recipe, precision, size)
    return tier, (
        f"{free / 1e9:.1f} GB of memory are free, but memory tier {tiers[0].name!r} needs about "
        f"{wanted / 1e9:.1f} GB beside the model. The run uses tier {tier.name!r}: "
        f"{tier.description}. Set compute.memory to {tiers[0].name!r} to try that tier anyway."
    )


def is_state_compatible(tier: Tier, other: Tier, recipe: Recipe) -> bool:
    """Whether one tier's optimizer can load the state of the other's."""
    return tier.eight_bit == other.eight_bit or recipe.optimizer.name == "adamw8bit"


def incompatible_state_message(before: Tier, recipe: Recipe) -> str:
    """The error message if no tier available to a run can resume a checkpoint of tier `before`."""
    if recipe.compute.memory != "auto":
        message = (
            f"compute.memory {recipe.compute.memory!r} cannot resume this run's training state, "
            f"which memory tier {before.name!r} saved with another optimizer's state. Set "
            f"compute.memory to {before.name!r} or 'auto'"
        )
    else:
        message = (
            f"This run's training state was saved in memory tier {before.name!r} with 8-bit Adam, "
            "but bitsandbytes is no longer installed, or does not work. Install it to resume: pip "
            "install --upgrade bitsandbytes"
        )
    restart = "clear continues" if recipe.continues else "raise attempt"
    return f"{message}; or {restart} to train from the start."


def next_lower_tier(tier: Tier, tiers: Sequence[Tier]) -> Tier | None:
    """The next tier that needs less memory, or None."""
    later = list(tiers)[list(tiers).index(tier) + 1 :] if tier in tiers else []
    return later[0] if later else None


# Files of a run.


def load_tier(file: Path) -> Tier | None:
    """The tier that a run last used, or None."""
    try:
        return tier_by_name(json.loads(file.read_text(encoding="utf-8"))["tier"])
    except (OSError, ValueError, LookupError, TypeError, StopIteration, RecursionError):
        return None


def save_tier(file: Path, tier: Tier) -> None:
    """Saves a run's tier, so that it resumes in it."""
    write_atomic(file, json.dumps({"version": 1, "tier": tier.name}))
