"""Evaluations during training: previews, validation losses and intermediate adapters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from .batches import collate, validation_samples
from .cuda_graphs import GraphedForwardBackward
from .divergence import check_weights, divergence_advice
from .ema import ema_weights
from .errors import Diverged, NothingLearned
from .memory import is_out_of_memory, release_memory
from .previews import draw_previews, has_previews
from .recipe import Recipe
from .result import save_adapter_file
from .run import Run
from .step import ForwardBackward, compute_losses

if TYPE_CHECKING:
    from .loop import Training


def is_evaluation_due(recipe: Recipe, done: int) -> bool:
    """Whether validation, previews or an intermediate adapter are due after `done` steps."""
    return (
        is_adapter_due(recipe, done)
        or is_due_at(recipe.validate_every, done)
        or are_previews_due(recipe, done)
    )


def is_adapter_due(recipe: Recipe, done: int) -> bool:
    """Whether an intermediate adapter is due; after the last step the result is saved anyway."""
    return is_due_at(recipe.saving.adapters_every, done) and done < recipe.schedule.steps


def are_previews_due(recipe: Recipe, done: int) -> bool:
    """Whether previews are due after `done` steps, also before the first and after the last."""
    every = recipe.previews.every
    return is_due_at(every, done) or (every > 0 and done == recipe.schedule.steps)


def is_due_at(every: int, done: int) -> bool:
    """Whether something that happens every `every` steps (0: never) is due."""
    return bool(every) and done % every == 0


def evaluate_on_resume(run: Run, training: Training, start: int) -> None:
    """Runs what is due at the step a run resumes from, where it may have been interrupted.

    Raises Diverged.
    """
    recipe = run.recipe
    if are_previews_due(recipe, start) and not has_previews(run, start):
        previews(run, training, start)
    if start and is_adapter_due(recipe, start):
        save_intermediate_adapter(run, training, start)
    if start and is_due_at(recipe.validate_every, start):
        validate(run, training, start)


def run_evaluations(run: Run, training: Training, done: int, backward: ForwardBackward) -> None:
    """Saves the adapter, validates and draws previews if due after a step.

    CUDA graphs hold a step's memory: if the rest is too little, they are dropped and captured
    again later. Raises Diverged.
    """
    for is_due, work in (
        (is_adapter_due(run.recipe, done), save_intermediate_adapter),
        (is_due_at(run.recipe.validate_every, done), validate),
    ):
        if is_due:
            _retry_without_graphs(partial(work, run, training, done), backward)
    if are_previews_due(run.recipe, done):
        previews(run, training, done, backward)


def previews(
    run: Run, training: Training, step: int, backward: ForwardBackward | None = None
) -> None:
    """Draws previews; if out of memory, notes it and disables them for the run."""
    if run.previews_disabled:
        return
    try:
        _retry_without_graphs(partial(preview, run, training, step), backward)
        return
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    release_memory()  # outside the handler: the error's traceback holds tensors
    size = f"{run.recipe.previews.width}x{run.recipe.previews.height}"
    run.note(
        f"Not enough memory for previews of {size}: none are generated. Reduce previews.width "
        "and previews.height."
    )
    run.previews_disabled = True


def _retry_without_graphs(work: Callable[[], None], backward: ForwardBackward | None) -> None:
    """Calls `work`, once more without CUDA graphs if they leave too little memory."""
    try:
        work()
        return
    except RuntimeError as error:
        if not isinstance(backward, GraphedForwardBackward) or not is_out_of_memory(error):
            raise
        graphed = backward
    graphed.reset()
    release_memory()  # outside the handler: the error's traceback holds tensors
    work()


def save_intermediate_adapter(run: Run, training: Training, done: int) -> None:
    """Saves the current adapter as a file like the result's. Raises Diverged."""
    with ema_weights(training.state):
        check_weights(run.recipe, training.state.parameters.values(), done)
        try:
            path = save_adapter_file(run, training.base, done)
        except NothingLearned as error:  # so far
            run.note(f"After step {done}: {error}")
            return
    run.emit("adapter", step=done, path=str(path))


def preview(run: Run, training: Training, step: int) -> None:
    """Draws previews, in the main process only."""
    base, device = training.base, run.accelerator.device
    parts = [base.vae] if training.tier.text_encoder_on_cpu else [base.vae, base.text_encoder]
    if run.accelerator.is_main_process:
        with ema_weights(training.state), on_device(device, *parts):
            draw_previews(run, base, training.learner, step)


@contextmanager
def on_device(device: torch.device, *parts: Any) -> Iterator[None]:
    """Moves models on another device to `device`, and back to the CPU afterwards."""
    away = [part for part in parts if part.device.type != device.type]
    try:
        for part in away:
            part.to(device)
        yield
    finally:
        for part in away:
            part.to("cpu")


def validate(run: Run, training: Training, step: int) -> None:
    """Computes the loss on held-out photographs at fixed noise and timesteps, without dropout.

    Raises Diverged if it is not finite.
    """
    learner, state = training.learner, training.state
    averaged_text = state.ema is not None and run.recipe.text_encoder.train
    with (
        torch.no_grad(),
        ema_weights(state),
        learner.eval_mode(reencode_prompts=averaged_text),
    ):
        losses = [
            compute_losses(learner, collate([sample], learner.device))
            for sample in validation_samples(run.recipe, training.dataset)
        ]
    loss = float(torch.cat(losses).mean())
    if not math.isfinite(loss):
        raise Diverged(
            f"The validation loss became {loss} at step {step}. {divergence_advice(run.recipe)}"
        )
    run.emit("validation", step=step, loss=loss)
