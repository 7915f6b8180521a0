"""Starts a run in its own process, follows it, and stops it. No torch here.

A process of its own gives all of the GPU's memory back when it ends, and a crash in it is
only an error message here.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from .digests import OnRead
from .errors import LikenessError, OutOfSpace, RunBusy, RunCancelled, RunFailed
from .events import Event, EventReader
from .places import Places
from .recipe import Recipe
from .run_folder import Result, RunFolder, busy_message, prepare, reused_message

PACKAGE = Path(__file__).resolve().parents[1]

POLL_SECONDS = 0.1
GRACE_SECONDS = 1.25  # for a last checkpoint when a run is cancelled
KILL_SECONDS = 2.0

OnEvent = Callable[[Event], None]


class Job:
    """A run in a process of its own.

    Args:
        folder: a prepared run.
        processes: how many processes train together, each on its own GPU or all on the CPU.
        device: "auto", or "cpu" to leave a GPU alone.
        since: the moment (a time of the run's file system) from which a stop flag is meant for
            this process.
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
        """What the run said since the last call."""
        return self._reader.new_events()

    def exit_code(self) -> int | None:
        """None while the process works."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ends the run's processes; they are gone when this returns, as a rule within four seconds.

        A run that can saves its state first.
        """
        others = self._child_processes()
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            others |= self._child_processes()
            self._process.kill()
        for process in others:
            with suppress(psutil.Error):
                process.kill()
        self._process.wait()
        _wait_for_end(others, KILL_SECONDS)

    def _child_processes(self) -> set[psutil.Process]:
        """What the process has started: those of several GPUs have process groups of their own."""
        if self._process.poll() is not None:
            return set()
        try:
            return set(psutil.Process(self._process.pid).children(recursive=True))
        except psutil.Error:
            return set()


def _wait_for_end(processes: set[psutil.Process], seconds: float) -> None:
    """Waits until all have ended; a zombie has, whenever its new parent may ask for it."""
    until = time.monotonic() + seconds
    while any(map(_is_alive, processes)) and time.monotonic() < until:
        time.sleep(POLL_SECONDS / 10)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _without_async_allocator(environment: dict[str, str]) -> dict[str, str]:
    """An environment in which PyTorch manages the GPU's memory itself.

    ComfyUI asks for CUDA's asynchronous allocator, for itself and so for its children. There CUDA
    graphs share no memory, and what is free is known less well.
    """
    changed = dict(environment)
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        asked = r"(^|,)\s*backend\s*:\s*cudaMallocAsync\s*(?=,|$)"
        left = re.sub(asked, "", changed.pop(name, "")).strip(", ")
        if left:
            changed[name] = left
    return changed


def with_passive_openmp(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which threads that wait for others soon sleep, if it says nothing of it.

    By themselves they spin for milliseconds, 300,000 turns of GNU's OpenMP, which PyTorch has on
    Linux. Seconds of a bf16 LoRA step at SD 1.5's sizes, on two cores:

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
    """This interpreter, as it was started: ComfyUI's portable build keeps the user's own packages
    out by ``-s``, and another torch must not come in here.
    """
    return [sys.executable, *(["-s"] if sys.flags.no_user_site else [])]


# What `accelerate launch` itself starts on one machine; it has no launcher for CPUs alone. ``-m``
# would import from the working folder, which is a run's and may have come from somebody else.
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
    """Raises RunFailed if not each process has a GPU of its own, where there are any."""
    from torch import cuda, distributed  # seconds, which only several processes cost

    if cuda.is_available() and processes > cuda.device_count():
        raise RunFailed(
            f"{processes} processes were asked for, but there are only {cuda.device_count()} GPUs: "
            "each process needs one of its own. Ask for fewer, or for the CPU."
        )
    if cuda.is_available() and not distributed.is_nccl_available():
        raise RunFailed(
            "This PyTorch has no NCCL, through which processes on GPUs share their gradients "
            "(there is none for Windows): ask for one process, or for the CPU."
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
    """Trains a recipe in its own process and waits for it; a finished equal run is reused, also one
    of another name, which is told as a notice.

    One that was stopped and saved goes on, or with `reuse_stopped` is reused, too, unless it was
    asked to go on (`RunFolder.final_result`).

    `on_read` is called with each file that is checked before the start, again and again while it is
    read; what it raises is raised here.
    `before_start` is called with the run's folder when all checks have passed and there is
    something to train.
    `interrupted` is asked ten times a second: if it returns True or raises, the run is cancelled
    (it saves its state if it can within a second, and goes on from there when it is started
    again) and RunCancelled or its exception is raised.
    Raises RunBusy if another process trains the run, OutOfSpace, RunFailed with the cause and the
    log's path, or the LikenessError of bad input.
    """
    if processes < 1:
        raise RunFailed(f"{processes} processes cannot train: ask for at least one.")
    if processes > 1 and device != "cpu":
        _check_gpus(processes)
    folder = prepare(recipe, places, reuse_stopped=reuse_stopped, on_read=on_read)
    result = folder.final_result() if reuse_stopped else folder.finished()
    if result is not None:
        text = reused_message(result, recipe)
        if text:
            on_event(Event("notice", time.time(), {"text": text}))
        return replace(result, reused=True, notes=(*filter(None, [text]), *result.notes))
    folder.log.touch()
    since = folder.log.stat().st_mtime  # a stop flag's time comes from the same clock
    if before_start is not None:
        before_start(folder)
    job = Job(folder, processes=processes, device=device, since=since)
    try:
        failure, stopped = _follow(job, on_event, interrupted)
    finally:
        job.terminate()
    result = folder.result()
    if failure is None and result is not None and job.exit_code() == 0:
        return result
    raise _to_error(job, failure, stopped)


def _follow(
    job: Job, on_event: OnEvent, interrupted: Callable[[], bool] | None
) -> tuple[str | None, bool]:
    """Passes events on until the process ends.

    Returns the message of a failure, and whether the run was asked to end and did.
    """
    failure: Event | None = None
    stopped = False
    running = True
    while running:
        running = job.exit_code() is None
        for event in job.new_events():
            # Of several processes others fail when one has: the first that is meant to be read.
            if event.kind == "failed" and (failure is None or _is_more_informative(event, failure)):
                failure = event
            stopped = stopped or event.kind == "stopped"
            on_event(event)
        if running:
            if interrupted is not None and interrupted():
                raise RunCancelled("The run was cancelled; it goes on from its last checkpoint.")
            time.sleep(POLL_SECONDS)
    return None if failure is None else _failure_text(failure, job.folder), stopped


def _is_more_informative(event: Event, before: Event) -> bool:
    """Of several processes others fail when one has: the first counts that is meant to be read."""
    return bool(event.data["expected"] and not before.data["expected"])


def _failure_text(event: Event, folder: RunFolder) -> str:
    return f"{event.data['message']}\nThe log is {folder.log}"


def _to_error(job: Job, failure: str | None, stopped: bool) -> LikenessError:
    """What to raise for a process without a result, by its last event or its exit code."""
    code, folder = job.exit_code(), job.folder
    if code == OutOfSpace.exit_code:
        full = f"The disk of {folder.path} is full: make room and start again, the run goes on."
        return OutOfSpace(failure or full)
    if failure is not None:
        return RunFailed(failure)
    if code == RunBusy.exit_code or folder.is_busy():  # of several processes the code is torch's
        return RunBusy(busy_message(folder))
    if stopped or code == RunCancelled.exit_code:  # of several processes the code is torch's
        return RunCancelled(f"The run was ended. {log_tail(folder.log, 1)}")
    return RunFailed(_crash_message(code, folder))


# What Windows ends a process with instead of a signal (NTSTATUS), as an unsigned number.
_NTSTATUS_MEANINGS = {
    0xC0000005: "an access violation: often a driver, or no memory",
    0xC0000017: "no memory",
    0xC000012D: "no memory: a larger page file helps",
    0xC0000135: "a missing DLL: often Microsoft's Visual C++ runtime",
    0xC000013A: "Ctrl-C or a closed window",
    0xC0000409: "a fatal error inside a library",
}


def _crash_message(code: int | None, folder: RunFolder) -> str:
    cause = f"ended with code {code}"
    if code in _NTSTATUS_MEANINGS:
        cause = f"ended with code 0x{code:X} ({_NTSTATUS_MEANINGS[code]})"
    elif code is not None and code < 0:
        cause = f"was ended by {_signal_name(-code)}"
        if -code == getattr(signal, "SIGKILL", 0):
            cause += " (often: out of memory)"
    return (
        f"The training process {cause}. Start again, and it goes on from its last checkpoint.\n"
        f"{log_tail(folder.log)}\nThe log is {folder.log}"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time one
        return f"signal {number}"


def log_tail(path: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error message."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])
