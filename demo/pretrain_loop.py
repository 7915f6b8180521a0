"""The resumable loop that trains each part of the miniature."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor
from torch.nn import Parameter
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..trainers import checkpoint
from ..trainers.ema import ema_weights
from ..trainers.errors import RunFailed
from ..trainers.rng import derive_seed
from ..trainers.run_folder import saved_steps

Losses = dict[str, Tensor]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Course:
    """Hyperparameters of a part's training.

    `samples` images in batches of `batch`; the learning rate warms up to `rate` in `warmup` steps
    and decays along a cosine to `rate` / 50. `ema` is the decay of the weights' moving average,
    which is exported.
    """

    samples: int
    batch: int
    rate: float
    warmup: int = 200
    weight_decay: float = 0.01
    ema: float = 0.999
    clip: float = 1.0

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole course."""
        return max(1, math.ceil(self.samples / self.batch))

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup)
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return self.rate * rise * (0.02 + 0.98 * fall)

    def digest(self, name: str) -> str:
        """Digest of the settings that a checkpoint must match; `samples` may change."""
        settings = {key: value for key, value in asdict(self).items() if key != "samples"}
        return sha256(json.dumps([name, settings], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Task:
    """One part's training: its named parameters, and callbacks.

    `losses(number, generator)` samples a batch and returns its losses, of which "loss" is
    minimised; its randomness comes only from the batch's number and the generator (on the device).
    `export()` writes the part's weights; `sheet()`, if given, returns a preview (h, w, 3) uint8.
    Both run with the averaged weights. A step computes `lanes` batches in parallel threads and uses
    their mean gradient: on a CPU with one thread per operation, a small network trains a third
    faster this way.
    """

    name: str
    parameters: dict[str, Parameter]
    losses: Callable[[int, torch.Generator], Losses]
    export: Callable[[], None]
    sheet: Callable[[], np.ndarray] | None = None
    lanes: int = 1


SAVE_EVERY, SHEET_EVERY, SAY_EVERY = 120.0, 240.0, 10.0  # seconds


def train(
    task: Task,
    course: Course,
    folder: Path,
    *,
    device: torch.device,
    deadline: float,
    say: Say = print,
) -> bool:
    """Trains until the course is complete (returns True) or `time.monotonic()` is `deadline`.

    Writes checkpoints/, log.jsonl and sheets/ to `folder`; a later call resumes from them.

    Raises:
        RunFailed: the loss is not a number.
        CheckpointError: the checkpoint is from another course or other code.
    """
    state = _state(task, course, device)
    step = _resume(folder, state, course.digest(task.name))
    clock = _Clock(folder, task.name, course, step, say)
    threads = ThreadPoolExecutor(task.lanes)
    while step < course.steps and time.monotonic() < deadline:
        losses = _step(task, course, state, step, device, threads)
        step += 1
        clock.count(step, losses)
        if clock.due("save", SAVE_EVERY):
            clock.tell(step)
            _save(task, course, state, step, folder)
            clock.start()
        if clock.due("sheet", SHEET_EVERY):
            clock.tell(step)
            _sheet(task, state, step, folder)
            clock.start()
    threads.shutdown()
    clock.tell(step)
    if step > clock.first:
        _save(task, course, state, step, folder)
        _sheet(task, state, step, folder)
    return step >= course.steps


def _state(task: Task, course: Course, device: torch.device) -> checkpoint.TrainingState:
    parameters = list(task.parameters.values())
    optimizer = torch.optim.AdamW(
        parameters, lr=course.rate, betas=(0.9, 0.99), weight_decay=course.weight_decay,
        fused=True,
    )  # fmt: skip
    ema = EMAModel(parameters, decay=course.ema, foreach=True)
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    return checkpoint.TrainingState(task.parameters, optimizer, scaler, ema)


def _resume(folder: Path, state: checkpoint.TrainingState, digest: str) -> int:
    found = saved_steps(folder / "checkpoints")
    if not found:
        return 0
    newest = checkpoint.step_folder(folder / "checkpoints", found[-1])
    return checkpoint.load(newest, state, digest)[0]


def _step(
    task: Task, course: Course, state: checkpoint.TrainingState, step: int, device: torch.device,
    threads: ThreadPoolExecutor,
) -> Losses:  # fmt: skip
    for group in state.optimizer.param_groups:
        group["lr"] = course.learning_rate_at(step)
    losses, gradients = _gradients(task, step, device, threads)
    for parameter, gradient in zip(task.parameters.values(), gradients, strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(task.parameters.values(), course.clip)
    state.optimizer.step()
    state.optimizer.zero_grad()
    assert state.ema is not None
    state.ema.step(task.parameters.values())
    return losses


def _gradients(
    task: Task, step: int, device: torch.device, threads: ThreadPoolExecutor
) -> tuple[Losses, list[Tensor | None]]:
    """The losses and gradients of a step, averaged over its lanes."""
    parameters = list(task.parameters.values())

    def one(lane: int) -> tuple[Losses, Sequence[Tensor | None]]:
        number = step * task.lanes + lane
        generator = torch.Generator(device).manual_seed(derive_seed(0, task.name, number))
        with _autocast(device):
            losses = task.losses(number, generator)
        gradients = torch.autograd.grad(losses["loss"], parameters, allow_unused=True)
        return {name: loss.detach() for name, loss in losses.items()}, gradients

    with _attention(device):
        if task.lanes == 1:
            losses, gradients = one(0)
            return losses, list(gradients)
        done = list(threads.map(one, range(task.lanes)))
    losses = {name: torch.stack([d[0][name] for d in done]).mean() for name in done[0][0]}
    return losses, [_mean(several) for several in zip(*(d[1] for d in done), strict=True)]


def _mean(gradients: Sequence[Tensor | None]) -> Tensor | None:
    found = [gradient for gradient in gradients if gradient is not None]
    return torch.stack(found).sum(0) / len(gradients) if found else None


@contextmanager
def half(device: torch.device) -> Iterator[None]:
    """Computes in bf16 if the device supports it, which is twice as fast."""
    with _attention(device), _autocast(device):
        yield


def _autocast(device: torch.device) -> torch.autocast:
    """bf16 autocast of this thread, if the device supports it."""
    fast = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    # Each weight is used once per pass, and all threads would share the cache.
    return torch.autocast(device.type, torch.bfloat16, enabled=fast, cache_enabled=False)


@contextmanager
def _attention(device: torch.device) -> Iterator[None]:
    """Unfused attention on a CPU: the fused kernel takes two fifths of a bf16 step there."""
    with ExitStack() as stack:
        if device.type == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def _save(
    task: Task, course: Course, state: checkpoint.TrainingState, step: int, folder: Path
) -> None:
    digest = course.digest(task.name)
    checkpoint.save(folder / "checkpoints", step, state, digest, losses=[], keep=1)
    with ema_weights(state):
        task.export()


@torch.no_grad()
def _sheet(task: Task, state: checkpoint.TrainingState, step: int, folder: Path) -> None:
    if task.sheet is None:
        return
    with ema_weights(state):
        image = task.sheet()
    (folder / "sheets").mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / "sheets" / f"step-{step:06d}.png")


class _Clock:
    """Schedules periodic work, reports speed, and logs losses."""

    def __init__(self, folder: Path, name: str, course: Course, first: int, say: Say) -> None:
        self._log, self._name, self._course, self._say = folder / "log.jsonl", name, course, say
        self.first = self._told = first
        self._sums: dict[str, Tensor] = {}
        now = time.monotonic()
        self._last = {"save": now, "sheet": now, "say": now}
        folder.mkdir(parents=True, exist_ok=True)

    def due(self, what: str, seconds: float) -> bool:
        """Whether `what`, which happens every `seconds`, is due; if so, restarts its interval."""
        now = time.monotonic()
        if now - self._last[what] < seconds:
            return False
        self._last[what] = now
        return True

    def start(self) -> None:
        """Restarts the speed measurement, after work other than training."""
        self._last["say"] = time.monotonic()

    def count(self, step: int, losses: Losses) -> None:
        """Counts a step; its losses stay on the device until they are logged."""
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0) + loss
        since = time.monotonic() - self._last["say"]
        if since >= SAY_EVERY:
            self.tell(step)

    def tell(self, step: int) -> None:
        """Logs the mean losses since the last call, and the time left."""
        steps = step - self._told
        if steps == 0:
            return
        means = {name: float(total) / steps for name, total in self._sums.items()}
        now = time.monotonic()
        speed = steps * self._course.batch / max(1e-9, now - self._last["say"])
        seen, left = step * self._course.batch, (self._course.steps - step) * self._course.batch
        line = {"samples": seen, **{k: round(v, 5) for k, v in means.items()}}
        line |= {"rate": self._course.learning_rate_at(step - 1), "per_second": round(speed, 1)}
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        if not math.isfinite(means["loss"]):
            raise RunFailed(f"The loss of {self._name} is not a number at {seen:,} samples.")
        self._say(
            f"{self._name}: {seen:,} of {self._course.samples:,} samples, "
            f"loss {means['loss']:.4f}, {speed:,.0f} samples/s, {left / speed / 60:.1f} min left"
        )
        self._sums, self._told, self._last["say"] = {}, step, now
