"""The running mean of the weights, which a run saves where its recipe asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .checkpoint import State


def average_weights(state: State, *, text_frozen: bool) -> None:
    """Takes a step's weights into the running mean; that of a frozen text encoder stays as it is.

    Else it would come ever closer to the weights of the text encoder's last step.
    """
    average = state.average
    if average is None:
        return
    pairs = zip(state.parameters.items(), average.shadow_params, strict=True)
    # EMAModel copies what has no gradient: here from the mean to itself.
    taken: Iterator[Any] = (
        mean if text_frozen and name.startswith("text_encoder.") else parameter
        for (name, parameter), mean in pairs
    )
    average.step(taken)


@contextmanager
def averaged(state: State) -> Iterator[None]:
    """The averaged weights in place of the trained ones, where the run averages."""
    if state.average is None:
        yield
        return
    parameters = list(state.parameters.values())
    state.average.store(parameters)
    state.average.copy_to(parameters)
    try:
        yield
    finally:
        state.average.restore(parameters)
