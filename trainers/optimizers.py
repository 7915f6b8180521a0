"""Optimizers and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch.nn import Parameter

from .memory import is_out_of_memory
from .optional_packages import import_error
from .recipe import Optimizer, Recipe, Schedule


def build_optimizer(
    spec: Optimizer, groups: list[dict[str, list[Parameter] | float]]
) -> torch.optim.Optimizer:
    """Builds the optimizer of `spec` over parameter groups, each with its own `lr`.

    8-bit Adam and Prodigy come from optional packages (`packages.require_packages`).
    """
    common: dict[str, Any] = {
        "betas": (spec.beta1, spec.beta2),
        "eps": spec.epsilon,
        "weight_decay": spec.weight_decay,
    }
    if spec.name == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit, optimizer

        # It synchronises after each parameter, for states paged to the host. These are not paged,
        # and its kernels run in order on the default stream.
        optimizer.sync_gpu = lambda t: None
        return AdamW8bit(groups, **common)
    if spec.name == "prodigy":
        from prodigyopt import Prodigy

        return Prodigy(groups, **common, safeguard_warmup=True, use_bias_correction=True)
    return torch.optim.AdamW(groups, **common, fused=True)


@cache
def eight_bit_error(device: torch.device) -> str | None:
    """Why a step of 8-bit Adam fails on a device (bitsandbytes may lack its kernels), or None."""
    if lack := import_error("bitsandbytes"):
        return f"it {lack}"
    weights = Parameter(torch.zeros(8192, device=device))  # state is in 8 bits from 4,096 values on
    weights.grad = torch.zeros_like(weights)
    try:
        from bitsandbytes.optim import AdamW8bit

        AdamW8bit([weights]).step()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return f"{error!r:.200}"
    return None


SLOW_8BIT_PARAMETERS = 50_000_000  # about a second per update


def slow_on_cpu_note(spec: Optimizer, trained: int, device: str) -> str | None:
    """A note if 8-bit Adam would be slow on a CPU with `trained` weights, else None.

    Measured with bitsandbytes 0.50: 22 s for the 983 million weights of SD 1.5, fused AdamW 4 s.
    """
    if spec.name != "adamw8bit" or device != "cpu" or trained < SLOW_8BIT_PARAMETERS:
        return None
    return (
        f"8-bit Adam is slow on a CPU: optimizer.name=adamw updates these {trained / 1e6:,.0f} "
        f"million weights in a fifth of the time, with {6 * trained / 1e9:.1f} GB more memory."
    )


def parameter_groups(
    recipe: Recipe, unet: list[Parameter], text: list[Parameter]
) -> list[dict[str, list[Parameter] | float]]:
    """One group for the UNet and one for the text encoder, each with its learning rate."""
    rate = recipe.optimizer.learning_rate
    groups: list[dict[str, list[Parameter] | float]] = [{"params": unet, "lr": rate}]
    if text:
        groups.append({"params": text, "lr": recipe.text_encoder.learning_rate or rate})
    return groups


def lr_lambda(schedule: Schedule) -> Callable[[int], float]:
    """The learning-rate factor at a step, from 0, as diffusers' schedules define it."""
    dummy = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = get_scheduler(
        schedule.lr_scheduler,
        dummy,
        num_warmup_steps=schedule.lr_warmup_steps,
        num_training_steps=schedule.steps,
        num_cycles=schedule.lr_num_cycles,
        power=schedule.lr_power,
    )
    return scheduler.lr_lambdas[0]


def lr_rise_note(before: Recipe, now: Recipe, step: int) -> str | None:
    """A note if resuming run `before` at `step` raises the learning rate, else None."""
    old, new = lr_lambda(before.schedule), lr_lambda(now.schedule)
    if new(step) <= 1.05 * old(step):
        return None
    ended = before.optimizer.learning_rate * old(step - 1)
    return (
        f"The learning rate rises again, from {ended:.2g} to "
        f"{now.optimizer.learning_rate * new(step):.2g}: schedule.lr_scheduler "
        f"{now.schedule.lr_scheduler!r} spans all {now.schedule.steps} steps. To continue gently, "
        "choose schedule.lr_scheduler 'constant' and a low learning rate."
    )


def effective_lr(optimizer: torch.optim.Optimizer) -> float:
    """The UNet's effective learning rate; Prodigy's is multiplied by its estimate `d`."""
    group = optimizer.param_groups[0]
    return float(group["lr"] * group.get("d", 1.0))


def set_lrs(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's learning rate to its initial one times `factor`."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * factor
