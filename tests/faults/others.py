"""Stops, cancels, full disks, wrong numbers and two at once: what each leaves behind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import psutil
import torch
from likeness.trainers import loop, preparation
from likeness.trainers.crash_report import log_tail
from likeness.trainers.errors import OutOfSpace, RunBusy
from likeness.trainers.job import _is_alive, train
from likeness.trainers.preparation import prepare

from .kills import tree_of
from .trials import (
    Bench,
    Lost,
    Unbroken,
    check_same,
    digest,
    events,
    finish,
    fork,
    kill,
    small_recipe,
    wait,
    wait_for_any,
)

CANCEL_SECONDS = 10.0  # on a busy machine; the table has the longest one
NOTICED_STEPS = 10


class _Cancelled(Exception):
    pass


def cancelled(bench: Bench, processes: int) -> float:
    """Starts a run as ComfyUI does and cancels it at a random moment; the seconds it took."""
    recipe, places = small_recipe(schedule={"steps": 100_000}), bench.places()
    before = _children()
    moment, asked = time.monotonic() + bench.random.uniform(0, 12), [0.0]

    def interrupted() -> bool:
        if time.monotonic() < moment:
            return False
        asked[0] = time.monotonic()
        raise _Cancelled

    try:
        train(
            recipe,
            places,
            on_event=lambda e: None,
            interrupted=interrupted,
            processes=processes,
            device="cpu",
        )
    except _Cancelled:
        seconds = time.monotonic() - asked[0]
    left = _children() - before
    if left:
        raise Lost(f"{len(left)} processes were left")
    if seconds > CANCEL_SECONDS:
        raise Lost(f"cancelling took {seconds:.1f} s")
    if list(places.loras.glob("*")):
        raise Lost("a cancelled run left an adapter")
    shutil.rmtree(places.runs.parent)
    return seconds


def _children() -> set[psutil.Process]:
    return {child for child in psutil.Process().children(recursive=True) if _is_alive(child)}


_PARENT = """
import runpy, sys, time
from pathlib import Path
runpy.run_path(sys.argv[1] + "/__main__.py", run_name="parent")["load_package"]()
from likeness.trainers.job import Job
from likeness.trainers.run_folder import RunFolder
job = Job(RunFolder(Path(sys.argv[2])), device="cpu")
print(job._process.pid, flush=True)
time.sleep(600)
"""
ROOT = Path(__file__).resolve().parents[2]


def parent_killed(bench: Bench, expected: Unbroken, both: bool) -> None:
    """kill -9 of the process that started a run (ComfyUI), or of both, while it works."""
    folder = bench.prepared(small_recipe())
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(ROOT), str(folder.path)], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    run = psutil.Process(int(parent.stdout.readline()))
    deadline = time.monotonic() + 60
    while not list(events(folder, "stage")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(bench.random.uniform(0, expected.seconds))
    parent.kill()
    if both and run.is_running():
        run.kill()
    parent.wait()
    gone, _ = psutil.wait_procs([run], timeout=30)
    if not gone:
        run.kill()
        raise Lost("the run went on without its parent")
    finish(folder)
    check_same(folder, expected)
    shutil.rmtree(tree_of(folder))


def stopped(bench: Bench, expected: Unbroken) -> None:
    """The flag file appears within a random step: the run saves after it, and goes on later."""
    folder = bench.prepared(small_recipe(saving={"every": 0}))
    step = bench.random.randrange(1, small_recipe().schedule.steps)

    def touch(number: int) -> None:
        if number == step:
            folder.stop.touch()

    if wait(fork(folder, lambda: _each_step(touch))) != 0:
        raise Lost(log_tail(folder.log, 20))
    result = folder.result()
    if result is None or not result.stopped or result.steps != step:
        raise Lost(f"asked within step {step}, stopped after {result and result.steps}")
    finish(folder)
    result = folder.result()
    if result is None or result.losses != expected.losses:
        raise Lost("the run that was stopped and went on differs")
    shutil.rmtree(tree_of(folder))


@contextmanager
def _each_step(act: Callable[[int], None]) -> Iterator[None]:
    """Calls `act(number)`, from 1, within each optimizer step of this process."""
    update, count = loop.update, [0]

    def counted(parameters, *rest):
        count[0] += 1
        update(parameters, *rest)
        act(count[0])

    loop.update = counted
    yield


def wrong_numbers(bench: Bench, kind: str) -> int:
    """Losses or weights become NaN or huge at a random step; how many steps until it was told."""
    folder = bench.prepared(small_recipe(schedule={"steps": 40}))
    step = bench.random.randrange(5, 28)
    code = wait(fork(folder, lambda: _wrong(kind, step)))
    told = next(events(folder, "failed"), None)
    if code != 1 or told is None or "learning_rate" not in str(told["message"]):
        raise Lost(f"{kind} at step {step} ended with {code}: {told}")
    checkpoints = [int(str(data["step"])) for data in events(folder, "checkpoint")]
    kept = sorted(int(path.name[5:]) for path in folder.checkpoints.glob("step-*"))
    if not kept or kept[-1] >= step or folder.result() is not None:
        raise Lost(f"{kind} at step {step} left the checkpoints {kept} of {checkpoints}")
    noticed = re.search(r" step (\d+)", str(told["message"]))
    shutil.rmtree(tree_of(folder))
    if noticed is None or not step <= int(noticed[1]) <= step + NOTICED_STEPS:
        raise Lost(f"{kind} at step {step} was told late: {told}")
    return int(noticed[1]) - step


@contextmanager
def _wrong(kind: str, step: int) -> Iterator[None]:
    accumulate_gradients, update, count = loop.accumulate_gradients, loop.update, [0]

    def losses(*arguments):
        count[0] += 1
        good = accumulate_gradients(*arguments)
        factor = {"NaN loss": float("nan"), "exploding loss": 1e4}.get(kind, 1.0)
        return good * factor if count[0] >= step else good

    def weights(parameters, *rest):
        update(parameters, *rest)
        if kind == "NaN weights" and count[0] >= step:
            with torch.no_grad():
                parameters[0].fill_(float("nan"))

    loop.accumulate_gradients, loop.update = losses, weights
    yield


def two_at_once(bench: Bench, expected: Unbroken) -> None:
    """Two processes start the same run: one trains, the other says so and touches nothing.

    The one that trains waits in its second step for the other's end, or it might be done before
    the other has come to ask.
    """
    folder = bench.prepared(small_recipe())
    told = bench.root / "told"

    def hold(step: int) -> None:
        deadline = time.monotonic() + 60
        while step == 2 and not told.exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    running = [fork(folder, lambda: _each_step(hold)) for _ in range(2)]
    code, busy = wait_for_any(running)
    told.touch()
    running.remove(busy)
    codes = [code, wait(running[0])]
    told.unlink()
    if codes != [RunBusy.exit_code, 0]:
        raise Lost(f"two at once ended with {codes}")
    check_same(folder, expected)
    shutil.rmtree(tree_of(folder))


def shared_caches(bench: Bench, expected: Unbroken) -> None:
    """Two runs with the same class images and images at once, one of them killed."""
    places = bench.places()
    one = prepare(small_recipe(), places)
    other = prepare(small_recipe(attempt=1), places)
    pids = fork(one), fork(other)
    time.sleep(bench.random.uniform(0, expected.seconds / 2))
    kill(pids[1])
    if wait(pids[0]) != 0:
        raise Lost(log_tail(one.log, 20))
    finish(other)
    for folder in (one, other):
        result = folder.result()
        if result is None or result.losses != expected.losses:
            raise Lost("a run with shared caches differs")
    shutil.rmtree(tree_of(one))


def can_mount() -> bool:
    """Whether this process may mount a file system of a few megabytes."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:  # root of a container may not
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


def full_disk(bench: Bench, expected: Unbroken) -> str:
    """A disk with a random amount of room: the run pauses, and goes on when there is more."""
    disk = bench.root / "disk"
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", disk], check=True)
    try:
        with mock.patch.object(preparation, "require_disk_space"):  # which asks for room for SD 1.5
            folder = prepare(small_recipe(), bench.places(disk))
        filler = disk / "filler"
        room = bench.random.randrange(4096, 700_000)
        with open(filler, "wb") as file:
            file.write(bytes(shutil.disk_usage(disk).free - room))
        code = wait(fork(folder))
        if code not in (0, OutOfSpace.exit_code):
            raise Lost(f"a full disk ended with {code}: {log_tail(folder.log, 20)}")
        filler.unlink()
        finish(folder)
        result = folder.result()
        if result is None or digest(result.adapter) != expected.digest:
            raise Lost("the run that met a full disk differs")
        return "paused" if code else "had room"
    finally:
        subprocess.run(["umount", disk], check=True)
