"""The running mean of the weights, which a run saves where its recipe asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .checkpoint import TrainingState


def update_ema(state: TrainingState, *, text_frozen: bool) -> None:
    """Takes a step's weights into the running mean; that of a frozen text encoder stays as it is.

    Else it would come ever closer to the weights of the text encoder's last step.
    """
    ema = state.ema
    if ema is None:
        return
    pairs = zip(state.parameters.items(), ema.shadow_params, strict=True)
    # EMAModel copies what has no gradient: here from the mean to itself.
    taken: Iterator[Any] = (
        mean if text_frozen and name.startswith("text_encoder.") else parameter
        for (name, parameter), mean in pairs
    )
    ema.step(taken)


@contextmanager
def ema_weights(state: TrainingState) -> Iterator[None]:
    """The averaged weights in place of the trained ones, where the run averages."""
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
