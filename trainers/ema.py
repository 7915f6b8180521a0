"""Exponential moving average (EMA) of the weights, saved if the recipe asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .checkpoint import TrainingState


def update_ema(state: TrainingState, *, text_frozen: bool) -> None:
    """Updates the average with a step's weights, but not that of a frozen text encoder.

    Otherwise it would converge to the text encoder's weights of its last step.
    """
    ema = state.ema
    if ema is None:
        return
    pairs = zip(state.parameters.items(), ema.shadow_params, strict=True)
    # EMAModel copies what does not require gradients: here from the average to itself.
    taken: Iterator[Any] = (
        average if text_frozen and name.startswith("text_encoder.") else parameter
        for (name, parameter), average in pairs
    )
    ema.step(taken)


@contextmanager
def ema_weights(state: TrainingState) -> Iterator[None]:
    """Replaces the trained weights with the averaged ones; no-op without EMA."""
    if state.ema is None:
        yield
        return
    parameters = list(state.parameters.values())
    state.ema.store(parameters)
    state.ema.copy_to(parameters)
    try:
        yield
    finally:
        state.ema.restore(parameters)
