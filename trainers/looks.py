"""What a run shows and leaves while it learns: previews, validation losses, adapters on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from .averaging import averaged
from .errors import Diverged, NothingLearned
from .graphs import Recorded
from .health import advice, check_weights
from .memory import is_out_of_memory, release_memory
from .previews import draw_previews, previews_drawn
from .recipe import Recipe
from .result import save_adapter_file
from .run import Run
from .samples import stacked, validation_samples
from .step import ForwardBackward, losses_of

if TYPE_CHECKING:
    from .loop import Training


def looks(recipe: Recipe, done: int) -> bool:
    """Whether a validation, previews or an adapter's file are due after a step."""
    return (
        adapter_due(recipe, done) or due(recipe.validate_every, done) or previews_due(recipe, done)
    )


def adapter_due(recipe: Recipe, done: int) -> bool:
    """Whether what is learned is saved as a file of its own; after the last step it is anyway."""
    return due(recipe.saving.adapters_every, done) and done < recipe.schedule.steps


def previews_due(recipe: Recipe, done: int) -> bool:
    """Whether previews are drawn after `done` steps: before the first, too, and after the last."""
    every = recipe.previews.every
    return due(every, done) or (every > 0 and done == recipe.schedule.steps)


def due(every: int, done: int) -> bool:
    """Whether something that is done `every` steps (0: never) is to be done now."""
    return bool(every) and done % every == 0


def catch_up(run: Run, training: Training, start: int) -> None:
    """What is due at the step that a run begins at: it may have been left before that was done.

    Raises Diverged.
    """
    recipe = run.recipe
    if previews_due(recipe, start) and not previews_drawn(run, start):
        previews(run, training, start)
    if start and adapter_due(recipe, start):
        save_on_the_way(run, training, start)
    if start and due(recipe.validate_every, start):
        validate(run, training, start)


def look(run: Run, training: Training, done: int, backward: ForwardBackward) -> None:
    """The adapter's file, the validation and the previews that are due after a step.

    Recordings of steps hold a step's memory: where there is no other, they are made anew later.
    Raises Diverged.
    """
    for is_due, work in (
        (adapter_due(run.recipe, done), save_on_the_way),
        (due(run.recipe.validate_every, done), validate),
    ):
        if is_due:
            _with_room(partial(work, run, training, done), backward)
    if previews_due(run.recipe, done):
        previews(run, training, done, backward)


def previews(
    run: Run, training: Training, step: int, backward: ForwardBackward | None = None
) -> None:
    """The previews; where there is no memory for them the run goes on without, and says so."""
    if run.no_previews:
        return
    try:
        _with_room(partial(preview, run, training, step), backward)
        return
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    release_memory()  # here the error, whose traceback holds tensors, is gone
    size = f"{run.recipe.previews.width}x{run.recipe.previews.height}"
    run.note(f"There is no memory for previews of {size}: none are drawn. Choose smaller ones.")
    run.no_previews = True


def _with_room(work: Callable[[], None], backward: ForwardBackward | None) -> None:
    """Does it, and where it finds no memory beside recordings, again without those."""
    try:
        work()
        return
    except RuntimeError as error:
        if not isinstance(backward, Recorded) or not is_out_of_memory(error):
            raise
        recorded = backward
    recorded.forget()
    release_memory()  # here the error, whose traceback holds tensors, is gone
    work()


def save_on_the_way(run: Run, training: Training, done: int) -> None:
    """Saves what is learned so far as a file like the result's. Raises Diverged."""
    with averaged(training.state):
        check_weights(run.recipe, training.state.parameters.values(), done)
        try:
            path = save_adapter_file(run, training.base, done)
        except NothingLearned as error:  # as yet
            run.note(f"After step {done}: {error}")
            return
    run.emit("adapter", step=done, path=str(path))


def preview(run: Run, training: Training, step: int) -> None:
    """Draws previews, by the main process only."""
    base, device = training.base, run.accelerator.device
    if run.accelerator.is_main_process:
        with averaged(training.state), at_hand(device, base.vae, base.text_encoder):
            draw_previews(run, base, training.learner, step)


@contextmanager
def at_hand(device: torch.device, *parts: Any) -> Iterator[None]:
    """Brings models to the device that are away from it, and puts those back afterwards."""
    away = [part for part in parts if part.device.type != device.type]
    try:
        for part in away:
            part.to(device)
        yield
    finally:
        for part in away:
            part.to("cpu")


def validate(run: Run, training: Training, step: int) -> None:
    """The loss on held-out photographs at fixed noise and timesteps, without dropout.

    Raises Diverged if it is not a number.
    """
    learner, state = training.learner, training.state
    with torch.no_grad(), averaged(state), learner.evaluating(anew=state.average is not None):
        losses = [
            losses_of(learner, stacked([sample], learner.device))
            for sample in validation_samples(run.recipe, training.material)
        ]
    loss = float(torch.cat(losses).mean())
    if not math.isfinite(loss):
        raise Diverged(f"The validation loss became {loss} at step {step}. {advice(run.recipe)}")
    run.emit("validation", step=step, loss=loss)
