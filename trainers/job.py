"""Starts, follows and stops a run in a process of its own. Imports no torch.

That process returns all of the GPU's memory when it exits, and a crash in it is only an error
message here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from .binding import named
from .cleanup import apply_keep
from .crash_report import crash_message, log_tail
from .digests import OnRead
from .earlier_runs import busy_message, reused_message
from .errors import LikenessError, OutOfSpace, RunBusy, RunCancelled, RunFailed
from .events import Event, EventReader
from .memory_tiers import TIERS
from .places import Places
from .preparation import prepare
from .recipe import Recipe
from .run_folder import Result, RunFolder

PACKAGE = Path(__file__).resolve().parents[1]

POLL_SECONDS = 0.1
GRACE_SECONDS = 1.25  # for a final checkpoint when a run is cancelled
KILL_SECONDS = 2.0
RESTART_SECONDS = 60.0  # until the processes of a run that is started again have freed their GPUs

OnEvent = Callable[[Event], None]


class Job:
    """A run in a process of its own.

    Args:
        folder: a prepared run.
        processes: how many processes train together, each on its own GPU or all on the CPU.
        device: "auto", or "cpu" to use no GPU.
        since: the earliest time, by the clock of the run's file system, of a stop flag that is
            meant for this process.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        processes: int = 1,
        device: str = "auto",
        since: float | None = None,
    ) -> None:
        self.folder = folder
        self._reader = EventReader(folder.events, skip_existing=True)
        self._children: set[psutil.Process] = set()  # known so far, as they are ended
        environment = _without_async_allocator(dict(os.environ))
        environment |= {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        environment["PYTHONIOENCODING"] = "utf-8:backslashreplace"  # of the log
        if sys.flags.no_user_site:  # for what torch.distributed.run starts
            environment["PYTHONNOUSERSITE"] = "1"
        environment = with_passive_openmp(environment)
        if device == "cpu":
            environment |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
        since_options = [] if since is None else ["--since", repr(since)]
        with open(folder.log, "ab") as log:
            self._process = subprocess.Popen(
                [*_command(processes), str(folder.path), "--follow-parent", *since_options],
                stdin=subprocess.PIPE,  # closes when this process ends: the run then ends too
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder.path,
                start_new_session=os.name != "nt",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )

    def new_events(self) -> list[Event]:
        """The events since the last call."""
        return self._reader.new_events()

    def exit_code(self) -> int | None:
        """The process's exit code; None while it runs."""
        return self._process.poll()

    def terminate(self, seconds: float = KILL_SECONDS) -> bool:
        """Ends the run's processes; returns whether all ended within `seconds` of being killed.

        The run saves its state first if it can. Usually takes less than four seconds.
        """
        self._children |= self._child_processes()
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._children |= self._child_processes()
            self._process.kill()
        for process in self._children:
            with suppress(psutil.Error):
                process.kill()
        self._process.wait()
        return _wait_for_end(self._children, seconds)

    def _child_processes(self) -> set[psutil.Process]:
        """All descendants: those for several GPUs have process groups of their own."""
        if self._process.poll() is not None:
            return set()
        try:
            return set(psutil.Process(self._process.pid).children(recursive=True))
        except psutil.Error:
            return set()


def _wait_for_end(processes: set[psutil.Process], seconds: float) -> bool:
    """Waits until all have ended; returns whether they have.

    Zombies count as ended, whether or not they are reaped.
    """
    until = time.monotonic() + seconds
    while alive := any(map(_is_alive, processes)):
        if time.monotonic() >= until:
            break
        time.sleep(POLL_SECONDS / 10)
    return not alive


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _without_async_allocator(environment: dict[str, str]) -> dict[str, str]:
    """The environment without a request for CUDA's asynchronous allocator.

    ComfyUI requests it for itself, and its children inherit that. With it, CUDA graphs share no
    memory and the free memory is known less exactly.
    """
    changed = dict(environment)
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        backend = r"(^|,)\s*backend\s*:\s*cudaMallocAsync\s*(?=,|$)"
        left = re.sub(backend, "", changed.pop(name, "")).strip(", ")
        if left:
            changed[name] = left
    return changed


def with_passive_openmp(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with OpenMP threads set to sleep soon when idle, unless it says otherwise.

    By default they spin for milliseconds: 300,000 turns in GNU OpenMP, PyTorch's on Linux. Seconds
    per bf16 LoRA step at SD 1.5's sizes, on two cores:

    ======== ===== ====== ======= ========
    turns    0     10,000 100,000 300,000
    quiet    1.3   1.1    1.1     1.0
    one busy 1.6   2.5    10.4    not tried
    ======== ===== ====== ======= ========
    """
    if "OMP_WAIT_POLICY" in environment or "GOMP_SPINCOUNT" in environment:
        return dict(environment)
    return {**environment, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


def python_command() -> list[str]:
    """This interpreter with its ``-s``, if any: ComfyUI's portable build uses it to keep out the
    user's site-packages, which may hold another torch.
    """
    return [sys.executable, *(["-s"] if sys.flags.no_user_site else [])]


# What `accelerate launch` runs on one machine; it has no launcher for CPUs only. ``-m`` would
# import from the working folder, a run folder that may have come from somebody else.
_TORCHRUN = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from torch.distributed.run import main; main()"
)


def _command(processes: int) -> list[str]:
    if processes == 1:
        return [*python_command(), str(PACKAGE), "run"]
    launch = [*python_command(), "-c", _TORCHRUN, "--standalone", f"--nproc_per_node={processes}"]
    return [*launch, str(PACKAGE), "run"]


def _check_gpus(processes: int) -> None:
    """Raises RunFailed if there are GPUs, but too few for one each, or no NCCL."""
    from torch import cuda, distributed  # takes seconds; needed for several processes only

    if cuda.is_available() and processes > cuda.device_count():
        raise RunFailed(
            f"{processes} processes need one GPU each; there are only {cuda.device_count()} GPUs. "
            "Use fewer processes, or the CPU."
        )
    if cuda.is_available() and not distributed.is_nccl_available():
        raise RunFailed(
            "This PyTorch has no NCCL, which several GPUs need to average gradients (Windows has "
            "none). Use one process, or the CPU."
        )


def train(
    recipe: Recipe,
    places: Places,
    *,
    on_event: OnEvent,
    interrupted: Callable[[], bool] | None = None,
    before_start: Callable[[RunFolder], None] | None = None,
    processes: int = 1,
    device: str = "auto",
    reuse_stopped: bool = False,
    on_read: OnRead | None = None,
) -> Result:
    """Trains a recipe in its own process and waits for the result.

    Reuses an equal finished run, and reports it as a notice if it has another name; with
    ``saving.keep`` 0 it deletes that run's training state. A run that was stopped and saved is
    resumed; with `reuse_stopped` it is reused too, unless it was asked to train on
    (`RunFolder.final_result`).

    If several processes train and one runs out of memory, all are started again in the next memory
    tier; the result's notes tell so.

    `on_read` is called repeatedly with each file that is checked before the start, while it is
    read; its exceptions propagate.
    `before_start` is called with the run's folder once all checks have passed, if there is
    something to train.
    `interrupted` is polled ten times a second: if it returns True or raises, the run is cancelled
    (it saves its state if it can within a second, to resume from when started again) and
    RunCancelled or that exception is raised.
    Raises RunBusy if another process is training the run, OutOfSpace, RunFailed with the cause and
    the log's path, or the LikenessError of bad input.
    """
    if processes < 1:
        raise RunFailed(f"{processes} processes cannot train; use at least one.")
    if processes > 1 and device != "cpu":
        _check_gpus(processes)
    folder = prepare(recipe, places, reuse_stopped=reuse_stopped, on_read=on_read)
    result = folder.final_result() if reuse_stopped else folder.finished()
    if result is not None:
        bound = named(recipe, places)
        notes = [*filter(None, (reused_message(result, bound), apply_keep(result, bound)))]
        for text in notes:
            on_event(Event("notice", time.time(), {"text": text}))
        return replace(result, reused=True, notes=(*notes, *result.notes))
    folder.log.touch()
    since = folder.log.stat().st_mtime  # the clock that stop flags are timed by
    if before_start is not None:
        before_start(folder)
    restarts: list[str] = []
    for _ in TIERS:  # each time in a lower one
        job = Job(folder, processes=processes, device=device, since=since)
        try:
            ending = _follow(job, on_event, interrupted)
        finally:
            job.terminate()
        if ending.restart is None:
            break
        restarts.append(ending.restart)
        if not job.terminate(RESTART_SECONDS):
            raise RunFailed(f"{ending.restart}\nIts processes do not end. Start it again later.")
    result = folder.result()
    if ending.message() is None and result is not None and job.exit_code() == 0:
        return replace(result, notes=(*restarts, *result.notes))
    raise _to_error(job, ending)


@dataclass
class _Ending:
    """What a run's processes reported of their end."""

    failure: Event | None = None
    stopped: bool = False  # asked to stop, and did
    restart: str | None = None  # why all processes have to be started again

    def add(self, event: Event) -> None:
        if event.kind == "failed":
            before = self.failure
            # When one process fails, others fail too: the first message meant for the user counts.
            if before is None or (event.data["expected"] and not before.data["expected"]):
                self.failure = event
        self.stopped = self.stopped or event.kind == "stopped"
        if event.kind == "restart":
            self.restart = str(event.data["text"])

    def message(self) -> str | None:
        """What failed; None also for errors of processes that lost one which was stopped."""
        if self.failure is None or (self.stopped and not self.failure.data["expected"]):
            return None
        return str(self.failure.data["message"])


def _follow(job: Job, on_event: OnEvent, interrupted: Callable[[], bool] | None) -> _Ending:
    """Passes events on until the process ends or has to be started again."""
    ending, running = _Ending(), True
    while running:
        running = job.exit_code() is None
        for event in job.new_events():
            ending.add(event)
            if ending.restart is not None:  # what follows are errors of processes left alone
                on_event(replace(event, kind="notice"))
                return ending
            on_event(event)
        if running:
            if interrupted is not None and interrupted():
                raise RunCancelled(
                    "The run was cancelled. Start it again to resume from its last saved state."
                )
            time.sleep(POLL_SECONDS)
    return ending


def _to_error(job: Job, ending: _Ending) -> LikenessError:
    """The error for a process without a result, by what it reported or its exit code."""
    code, folder, failure = job.exit_code(), job.folder, ending.message()
    if failure is not None:
        failure = f"{failure}\nThe log is {folder.log}"
    if code == OutOfSpace.exit_code:
        full = f"The disk of {folder.path} is full. Free some space and start again to resume."
        return OutOfSpace(failure or full)
    if failure is not None:
        return RunFailed(failure)
    if code == RunBusy.exit_code or folder.is_busy():  # for several processes, torchrun's code
        return RunBusy(busy_message(folder))
    if ending.stopped or code == RunCancelled.exit_code:  # for several, torchrun's code
        return RunCancelled(f"The run was stopped. {log_tail(folder.log, 1)}")
    return RunFailed(crash_message(code, folder))
