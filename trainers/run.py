"""A run in progress: its inputs, state, timing and events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

import psutil
import torch
from accelerate import Accelerator
from torch import Tensor

from .divergence import check_loss, check_loss_scale
from .errors import RunCancelled
from .events import Emit
from .memory_tiers import Tier
from .places import Places
from .recipe import Recipe
from .run_folder import RunFolder
from .stop import StopSignal

FLUSH_SECONDS = 0.25
FLUSH_STEPS = 10


@dataclass
class Run:
    """A run in progress: its inputs, what changes, and what it reports."""

    folder: RunFolder
    recipe: Recipe
    places: Places
    accelerator: Accelerator
    emit: Emit
    stop: StopSignal
    precision: str
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    peak_memory: int = 0
    photos: int = 0  # photographs to train on, once they are loaded
    tier: Tier | None = None  # of this attempt, once chosen
    resumed_from: RunFolder | None = None  # whose training state it started from
    previews_disabled: bool = False  # after running out of memory

    @property
    def uses_tf32(self) -> bool:
        """Whether matrix products of fp32 numbers may use TF32."""
        return self.recipe.compute.tf32 and self.precision == "fp32"

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage and reports its start."""
        self.emit("stage", name=name, done=0, total=0)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def progress(self, name: str, done: int, total: int) -> None:
        """Reports a stage's progress."""
        self.emit("stage", name=name, done=done, total=total)

    def note(self, text: str) -> None:
        """Reports a note to the user, once, and keeps it with the result."""
        if text in self.notes:
            return  # reported by an earlier attempt, in another memory tier
        self.notes.append(text)
        self.emit("notice", text=text)

    def stop_at(self, step: int) -> NoReturn:
        """Ends the run, whose state is saved, by raising RunCancelled."""
        raise RunCancelled(
            f"The run was stopped at step {step}, where its state is saved. Start it again to "
            "resume from there.",
            step,
        )

    def reset_peak_memory(self) -> None:
        """Resets the peak memory at the start of an attempt."""
        self.peak_memory = 0
        if self.accelerator.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def memory(self) -> int:
        """Peak memory in bytes: of the GPU, else of this process."""
        if self.accelerator.device.type == "cuda":
            now = torch.cuda.max_memory_allocated()
        else:
            now = psutil.Process().memory_info().rss
        self.peak_memory = max(self.peak_memory, now)
        return self.peak_memory


class StepLogger:
    """Logs steps, reading losses from the device in blocks so that the loop does not wait for it.

    `last_logged` is the last step whose loss was read and passed `divergence.check_loss`. `scaler`
    is the run's, whose scale is checked too.
    """

    def __init__(self, run: Run, start: int, scaler: torch.amp.GradScaler) -> None:
        self._run, self._scaler = run, scaler
        self.last_logged = start
        self._pending: list[tuple[Tensor, float]] = []
        self._flushed = time.perf_counter()

    def add(self, losses: Tensor, rate: float) -> None:
        """Queues one step's losses (2,) and learning rate."""
        self._pending.append((losses, rate))
        late = time.perf_counter() - self._flushed >= FLUSH_SECONDS
        if late or len(self._pending) >= FLUSH_STEPS:
            self.flush()

    def flush(self) -> None:
        """Emits the pending steps. Raises Diverged, see `check_loss` and `check_loss_scale`."""
        if not self._pending:
            return
        values = torch.stack([losses for losses, _ in self._pending]).tolist()
        now = time.perf_counter()
        seconds = (now - self._flushed) / len(values)
        memory = self._run.memory()  # slow to query: once a block
        for (instance, prior), (_, rate) in zip(values, self._pending, strict=True):
            self._emit_step(instance, prior, rate, seconds, memory)
        self._pending.clear()
        self._flushed = now
        if self._scaler.is_enabled():
            check_loss_scale(self._run.recipe, self._scaler.get_scale(), self.last_logged)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Flushes, and leaves the time of the enclosed work out of the steps' times."""
        self.flush()
        yield
        self._flushed = time.perf_counter()

    def _emit_step(
        self, instance: float, prior: float, rate: float, seconds: float, memory: int
    ) -> None:
        run, loss, step = self._run, instance + prior, self.last_logged + 1
        run.losses.append(loss)
        check_loss(run.recipe, run.losses, step)
        self.last_logged = step
        run.emit(
            "step",
            step=step,
            total=run.recipe.schedule.steps,
            loss=loss,
            instance_loss=instance,
            prior_loss=prior if run.recipe.prior else None,
            learning_rate=rate,
            seconds=seconds,
            memory=memory,
        )
