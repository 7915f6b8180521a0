"""Runs of a few seconds in forked processes, and what an unbroken one gives.

The harness imports the training stack once; a fork of it is a run's own process like any other,
without the seconds of importing. POSIX only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from likeness.demo.random_model import write_random_model
from likeness.trainers.crash_report import log_tail
from likeness.trainers.events import EventReader
from likeness.trainers.places import Places
from likeness.trainers.preparation import prepare
from likeness.trainers.presets import preset
from likeness.trainers.process import run_process
from likeness.trainers.recipe import Recipe
from likeness.trainers.run_folder import RunFolder
from PIL import Image

Around = Callable[[], contextlib.AbstractContextManager[object]]

STEPS = 12
KINDS = {
    "lora": {"method": {"kind": "lora", "rank": 2}, "objective": {"ema_decay": 0.9}},
    "dreambooth": {"method": {"kind": "dreambooth"}, "text_encoder": {"train": False}},
}


class Lost(AssertionError):
    """A run that was lost, or came out different."""


def small_recipe(kind: str = "lora", **parts: object) -> Recipe:
    """A recipe of all the stages that takes about a second."""
    recipe = preset("lora-r4").changed(
        subject={"resolution": 64},
        prior={"count": 2, "steps": 1},
        schedule={"steps": STEPS},
        optimizer={"name": "adamw", "learning_rate": 1e-4},
        compute={"attention": "sdpa", "precision": "fp32"},
        saving={"every": 3},
        **KINDS[kind],
    )
    return recipe.changed(**parts)


@dataclass(frozen=True)
class Unbroken:
    """What a run gives that nothing disturbed."""

    digest: str  # of the adapter's bytes
    losses: tuple[float, ...]
    seconds: float
    operations: int  # on files, see kills.py


class Bench:
    """Model, photographs and folders for trials, all below `root`."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)
        self.base = write_random_model(root / "base" / "base.safetensors", dtype="fp32")
        self.photos = root / "photos"
        self.photos.mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(self.photos / f"{number}.png")
        self._trials = 0

    def places(self, output: Path | None = None) -> Places:
        """New folders, or those below `output`."""
        self._trials += 1
        output = output or self.root / f"trial-{self._trials}"
        return Places(
            base=self.base,
            photos=self.photos,
            runs=output / "runs",
            loras=output / "loras",
            checkpoints=output / "checkpoints",
            cache=output / "cache",
        )

    def prepared(self, recipe: Recipe) -> RunFolder:
        """A prepared run in new folders."""
        return prepare(recipe, self.places())


def fork(folder: RunFolder, around: Around = contextlib.nullcontext) -> int:
    """Starts a prepared run in a process of its own; returns its number.

    `around` is entered in that process.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        os.setsid()
        log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        with around():
            code = run_process(folder.path, follow_parent=False)
    finally:
        os._exit(code)


def wait(pid: int, seconds: float = 120) -> int:
    """The exit code of a forked run, negative for a signal; Lost if it hangs."""
    return wait_for_any([pid], seconds)[0]


def wait_for_any(pids: Sequence[int], seconds: float = 120) -> tuple[int, int]:
    """The exit code and the number of the forked run that ends first; Lost if all hang."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for pid in pids:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status), pid
        time.sleep(0.005)
    for pid in pids:
        kill(pid)
    raise Lost(f"a run hung for {seconds} s")


def kill(pid: int) -> None:
    """kill -9."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def finish(folder: RunFolder) -> None:
    """Trains what is left. Raises Lost unless the process ends well."""
    code = wait(fork(folder))
    if code != 0:
        raise Lost(f"exit code {code}:\n{log_tail(folder.log, 20)}")


def unbroken(bench: Bench, recipe: Recipe, counted: Callable[[RunFolder], int]) -> Unbroken:
    """Trains once to warm up and once for the clock; `counted` trains and counts operations."""
    folder = bench.prepared(recipe)
    operations = counted(folder)
    timed = bench.prepared(recipe)
    start = time.monotonic()
    finish(timed)
    seconds = time.monotonic() - start
    result, again = folder.result(), timed.result()
    if result is None or again is None or digest(result.adapter) != digest(again.adapter):
        raise Lost("two unbroken runs differ")
    return Unbroken(digest(result.adapter), result.losses, seconds, operations)


def check_same(folder: RunFolder, expected: Unbroken) -> None:
    """Raises Lost unless the run gave one adapter and losses, equal to the unbroken run's."""
    result = folder.result()
    if result is None:
        raise Lost("there is no result")
    if result.losses != expected.losses:
        raise Lost("the losses differ")
    if digest(result.adapter) != expected.digest:
        raise Lost("the adapter differs")
    files = sorted(path.name for path in result.adapter.parent.glob("*.safetensors"))
    if files != [result.adapter.name]:
        raise Lost(f"more than one file was left: {files}")


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def events(folder: RunFolder, kind: str) -> Iterator[dict[str, object]]:
    """The data of all events of a kind."""
    for event in EventReader(folder.events).new_events():
        if event.kind == kind:
            yield event.data


def saved_step(folder: RunFolder) -> int:
    """The step of the newest checkpoint that was announced, or 0."""
    return max((int(str(data["step"])) for data in events(folder, "checkpoint")), default=0)


def went_on_from(folder: RunFolder) -> int:
    """The step that the newest attempt went on from, or 0."""
    texts = [str(d["text"]) for d in events(folder, "notice") if "Resuming from" in str(d["text"])]
    return int(texts[-1].rstrip(".").split()[-1]) if texts else 0


def stage_of(folder: RunFolder) -> str:
    """What the run was doing when it ended: its last stage, or writing a checkpoint."""
    if any(path.name.startswith(".") for path in folder.checkpoints.glob(".*")):
        return "checkpoint"
    names = [str(data["name"]) for data in events(folder, "stage")]
    return names[-1] if names else "start"


def write_json(path: Path, value: object) -> None:
    """For numbers that a forked run tells the harness."""
    path.write_text(json.dumps(value))
