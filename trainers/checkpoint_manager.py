"""When a run saves checkpoints, and which earlier ones it then removes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from . import checkpoint
from .divergence import check_weights
from .errors import CheckpointError, Diverged
from .run import Run

# Without saving.every a run saves about every five minutes, in at most 2 % of its time.
AUTOSAVE_SECONDS = 300.0
AUTOSAVE_OVERHEAD = 0.02


class CheckpointManager:
    """Checkpoints of a run during training.

    A checkpoint is confirmed when a later step's loss is sound or the adapter is saved. Only then
    are older ones removed, so that there is always a good one to fall back to.
    """

    def __init__(self, run: Run, state: checkpoint.TrainingState) -> None:
        self._run = run
        self._state = state
        self._unconfirmed: int | None = None
        self._saved = time.monotonic()
        self._autosave_interval = AUTOSAVE_SECONDS

    def save_due(self) -> bool:
        """Whether a run without saving.every is due for a checkpoint."""
        every = self._run.recipe.saving.every
        return not every and time.monotonic() - self._saved > self._autosave_interval

    def save(self, step: int, *, needed: bool = True) -> None:
        """Writes a checkpoint, from the main process only.

        If not `needed` because the run continues, it may fail if another program has its files
        open. Raises Diverged for non-finite weights, otherwise as `checkpoint.save`.
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
                    f"The training state after step {step} could not be written; the run "
                    f"continues without it: {error.__cause__}. Another program, such as a virus "
                    "scanner, may have it open."
                )
        run.accelerator.wait_for_everyone()
        self._saved = time.monotonic()
        self._autosave_interval = max(AUTOSAVE_SECONDS, (self._saved - began) / AUTOSAVE_OVERHEAD)

    def _write(self, step: int) -> None:
        run = self._run
        path = checkpoint.save(
            run.folder.checkpoints, step, self._state, run.recipe.digest(), run.losses,
            processes=run.accelerator.num_processes,
        )  # fmt: skip
        run.emit("checkpoint", step=step, path=path.relative_to(run.folder.path).as_posix())
        self._unconfirmed = step

    def confirm(self, confirmed_step: int) -> None:
        """Removes old checkpoints once `confirmed_step`, after the newest one, succeeded."""
        if self._unconfirmed is not None and confirmed_step > self._unconfirmed:
            if self._run.accelerator.is_main_process:
                keep = max(1, self._run.recipe.saving.keep)  # one to resume from
                checkpoint.prune(self._run.folder.checkpoints, self._unconfirmed, keep)
            self._unconfirmed = None

    @contextmanager
    def discard_on_divergence(self) -> Iterator[None]:
        """On Diverged, removes an unconfirmed checkpoint if there is an older one."""
        try:
            yield
        except Diverged:
            if self._unconfirmed is not None and self._run.accelerator.is_main_process:
                checkpoint.discard(self._run.folder.checkpoints, self._unconfirmed)
            raise
