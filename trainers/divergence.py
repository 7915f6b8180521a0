"""Detects divergence within ten steps, and advises what to change."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .errors import Diverged
from .recipe import Recipe

LOSS_WINDOW = 10  # steps
DIVERGENCE_FACTOR = 10.0


def check_loss(recipe: Recipe, losses: Sequence[float], step: int) -> None:
    """Raises Diverged if the last of `losses`, that of `step`, is not finite, or they explode.

    They explode when the mean of the last ten exceeds ten times the first loss or, if larger, that
    of a model that predicts zero: the noise's variance of 1 for the photographs plus the prior's
    weight for the class images.
    """
    last = losses[-1]
    if not math.isfinite(last):
        raise Diverged(f"The loss became {last} at step {step}. {divergence_advice(recipe)}")
    zero_prediction_loss = 1.0 + (recipe.prior.loss_weight if recipe.prior else 0.0)
    bound = DIVERGENCE_FACTOR * max(losses[0], zero_prediction_loss)
    recent = losses[-LOSS_WINDOW:]
    mean = sum(recent) / len(recent)
    if mean > bound:
        raise Diverged(
            f"The loss exploded: it started at {losses[0]:.3g}, and at step {step} the mean of the "
            f"last {len(recent)} steps is {mean:.3g}. {divergence_advice(recipe)}"
        )


def check_loss_scale(recipe: Recipe, scale: float, step: int) -> None:
    """Raises Diverged if the fp16 loss scale fell below 1: the gradients keep overflowing.

    Each such step is skipped and halves the scale, from 65,536 on (torch.amp.GradScaler), while
    the loss, which is not scaled, looks sound.
    """
    if scale < 1:
        raise Diverged(
            f"The gradients kept overflowing in fp16 up to step {step}, so those steps were "
            f"skipped and taught nothing. {divergence_advice(recipe)}"
        )


def check_weights(recipe: Recipe, parameters: Iterable[Tensor], step: int) -> None:
    """Raises Diverged unless all weights are finite, so that no corrupt state is saved."""
    norms = torch._foreach_norm([p.detach() for p in parameters])
    # A text encoder may be on the CPU.
    if not bool(torch.stack([norm.to(norms[0].device) for norm in norms]).isfinite().all()):
        raise Diverged(
            f"Weights became infinite or NaN by step {step}. {divergence_advice(recipe)}"
        )


def divergence_advice(recipe: Recipe) -> str:
    """What to change in this recipe, as the end of an error message."""
    rate = recipe.optimizer.learning_rate
    parts = [f"a lower optimizer.learning_rate (it is {rate:g}; try {rate / 10:g})"]
    if recipe.optimizer.max_grad_norm is None:
        parts.append("optimizer.max_grad_norm 1")
    if recipe.schedule.lr_scheduler == "constant":
        parts.append("schedule.lr_scheduler constant_with_warmup with schedule.lr_warmup_steps")
    if recipe.compute.precision == "fp16":
        parts.append("compute.precision bf16 or fp32")
    tries = ", or ".join(parts)
    return f"Training diverged; good training states, if there are any, are kept. Try {tries}."
