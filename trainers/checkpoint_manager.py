"""When a run saves its state, and which earlier states it then lets go of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from . import checkpoint
from .divergence import check_weights
from .errors import CheckpointError, Diverged
from .run import Run

# Without saving.every a run saves about every five minutes, at 2 % of its time at most.
AUTOSAVE_SECONDS = 300.0
AUTOSAVE_OVERHEAD = 0.02


class CheckpointManager:
    """The checkpoints of a run while it trains.

    A checkpoint is proven when a later step's loss was sound, or the adapter is saved; only then
    are older ones removed, so that there is always a good one to go back to.
    """

    def __init__(self, run: Run, state: checkpoint.TrainingState) -> None:
        self._run = run
        self._state = state
        self._unconfirmed: int | None = None
        self._saved = time.monotonic()
        self._autosave_interval = AUTOSAVE_SECONDS

    def save_due(self) -> bool:
        """Whether a run that saves at its end only has gone long enough without."""
        every = self._run.recipe.saving.every
        return not every and time.monotonic() - self._saved > self._autosave_interval

    def save(self, step: int, *, needed: bool = True) -> None:
        """Writes a checkpoint, by the main process only.

        One that is not `needed`, because the run goes on, may fail where another program has its
        files open. Raises Diverged for unsound weights, else as `checkpoint.save`.
        """
        run, began = self._run, time.monotonic()
        check_weights(run.recipe, self._state.parameters.values(), step)
        if run.accelerator.is_main_process:
            try:
                self._write(step)
            except CheckpointError as error:
                if needed or not isinstance(error.__cause__, PermissionError):
                    raise
                run.note(
                    f"The checkpoint after step {step} could not be written, and the run goes on "
                    f"without it: {error.__cause__}. Another program, such as a virus scanner, "
                    "may have it open."
                )
        run.accelerator.wait_for_everyone()
        self._saved = time.monotonic()
        self._autosave_interval = max(AUTOSAVE_SECONDS, (self._saved - began) / AUTOSAVE_OVERHEAD)

    def _write(self, step: int) -> None:
        run = self._run
        path = checkpoint.save(
            run.folder.checkpoints, step, self._state, run.recipe.digest(), run.losses
        )
        run.emit("checkpoint", step=step, path=path.relative_to(run.folder.path).as_posix())
        self._unconfirmed = step

    def confirm(self, confirmed_step: int) -> None:
        """Removes old checkpoints once step `confirmed_step`, after the newest one, went well."""
        if self._unconfirmed is not None and confirmed_step > self._unconfirmed:
            if self._run.accelerator.is_main_process:
                keep = max(1, self._run.recipe.saving.keep)  # to go on from while it trains
                checkpoint.prune(self._run.folder.checkpoints, self._unconfirmed, keep)
            self._unconfirmed = None

    @contextmanager
    def discard_on_divergence(self) -> Iterator[None]:
        """Where Diverged comes out, an unproven checkpoint goes if an older one is there."""
        try:
            yield
        except Diverged:
            if self._unconfirmed is not None and self._run.accelerator.is_main_process:
                checkpoint.discard(self._run.folder.checkpoints, self._unconfirmed)
            raise
