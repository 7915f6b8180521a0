"""Entry point of a run's child process: locking, events and error reporting."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from filelock import FileLock, Timeout

from . import memory_tiers
from .earlier_runs import busy_message, check_not_busy, equivalent_runs
from .errors import (
    LikenessError,
    OutOfMemory,
    OutOfSpace,
    RecipeError,
    RestartNeeded,
    RunBusy,
    RunCancelled,
    RunFailed,
)
from .events import Emit, EventWriter
from .files import is_disk_full
from .memory import is_out_of_memory, memory_advice, page_file_advice, prevent_sysmem_fallback
from .read_ahead import read_ahead
from .run_folder import RunFolder

LOCK_TIMEOUT_SECONDS = 1.0  # others briefly take the lock to see whether it is free
STOP_POLL_SECONDS = 0.2  # between checks for a stop request

_log = logging.getLogger(__name__)


def run_process(path: Path, *, follow_parent: bool, since: float | None = None) -> int:
    """Trains the prepared run in `path`; returns the exit code.

    A stop flag older than `since` (seconds since the epoch; None: now) was meant for an earlier
    process and is removed. Every error is reported as an event `failed` and in the log, which
    also has the traceback.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    folder, start = RunFolder(path.absolute()), time.time()
    try:
        _check_prepared(folder)
        reading = read_ahead(folder)  # overlaps with seconds of imports
        accelerator = _create_accelerator()
        main = accelerator.is_main_process
        with lock_run(folder, since or start, main=main), _events(folder, accelerator) as emit:
            train = partial(_train, folder, accelerator, emit, follow_parent, reading)
            code = _run_and_report(train, folder, emit, start)
            # Obeyed, or came too late. After an error it may be meant for the next process
            # (`job.train` restarts a run).
            if main and code in (0, RunCancelled.exit_code):
                with suppress(OSError):
                    folder.stop.unlink(missing_ok=True)
            return code
    except Exception as error:  # noqa: BLE001  the outermost handler
        # No event: this is not a run, another process holds the lock, the disk is full, or PyTorch
        # fails to start.
        known = _to_reported_error(error, folder)
        _log.error("%s", known)
        return known.exit_code


def _check_prepared(folder: RunFolder) -> None:
    """Raises RunFailed if the folder is not a run folder, so that nothing is written to it."""
    if not folder.recipe_file.is_file():
        raise RunFailed(
            f"{folder.path} is not a run folder: it has no recipe.json. The run folders of "
            "`likeness train` are in OUTPUT/likeness/runs."
        )


def _create_accelerator() -> Any:
    """The Accelerator of this process, distributed if it was launched that way."""
    from accelerate import Accelerator, InitProcessGroupKwargs
    from accelerate.utils import check_cuda_p2p_ib_support

    from .gpu_capabilities import configure_zluda

    if not check_cuda_p2p_ib_support():  # RTX 40: else it raises; as in `accelerate launch`
        os.environ.setdefault("NCCL_P2P_DISABLE", "1")
        os.environ.setdefault("NCCL_IB_DISABLE", "1")
    # A process may wait for another to draw its share of the class images.
    waiting = InitProcessGroupKwargs(timeout=timedelta(days=1))
    accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[waiting])
    if accelerator.device.type == "cuda":
        prevent_sysmem_fallback()
    configure_zluda(accelerator.device)
    return accelerator


def _run_and_report(train: Callable[[], None], folder: RunFolder, emit: Emit, start: float) -> int:
    """Trains; reports errors as events and returns the exit code."""
    try:
        train()
    except RunCancelled as error:
        _log.info("%s", error)
        emit("stopped", step=error.step)
        return error.exit_code
    except RestartNeeded as error:
        _log.error("%s", error)
        emit("restart", text=str(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001  all errors are reported
        known = _to_reported_error(error, folder)
        emit("failed", message=str(known), expected=not isinstance(known, UnexpectedError))
        _log.error("%s failed: %s", folder.path, known)
        return known.exit_code
    emit("finished", seconds=time.time() - start)
    return 0


def _to_reported_error(error: Exception, folder: RunFolder) -> LikenessError:
    """The error to report; prints the traceback of one that had to be converted."""
    known = to_likeness_error(error, folder)
    if known is not error:
        with suppress(OSError):  # the log may be on a full disk
            traceback.print_exc()
    return known


def _train(
    folder: RunFolder, accelerator: Any, emit: Emit, follow_parent: bool, reading: Thread
) -> None:
    from .optional_packages import hide_packages, packages_needed_by
    from .stop import StopSignal

    hide_packages(packages_needed_by(folder.recipe()))
    from .loop import train

    stop = StopSignal(folder.stop, follow_parent=follow_parent and accelerator.is_main_process)
    stop.handle_sigterm()
    while reading.is_alive() and not stop.local_request():
        reading.join(STOP_POLL_SECONDS)
    result = train(folder, accelerator, emit, stop)
    if result.stopped:
        emit("stopped", step=result.steps)


@contextmanager
def lock_run(folder: RunFolder, start: float, *, main: bool = True) -> Iterator[None]:
    """Locks the run folder; the system releases the lock however the process ends.

    Removes a stop flag older than `start` (seconds since the epoch), which was meant for an
    earlier process. A no-op unless `main`. Raises RunBusy, and RunFailed or OutOfSpace if the
    folder cannot be locked.
    """
    if not main:
        yield
        return
    lock = FileLock(folder.lock, timeout=LOCK_TIMEOUT_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise RunBusy(busy_message(folder)) from None
    except (OSError, NotImplementedError) as error:
        kind = OutOfSpace if is_disk_full(error) else RunFailed
        raise kind(f"The run folder {folder.path} cannot be locked: {error}") from None
    with suppress(OSError):
        if folder.stop.stat().st_mtime < start:
            folder.stop.unlink()
    try:
        with suppress(RecipeError):  # a damaged folder: the run itself reports it
            check_not_busy(equivalent_runs(folder.recipe(), folder.places()))
        yield
    finally:
        lock.release()


@contextmanager
def _events(folder: RunFolder, accelerator: Any) -> Iterator[Emit]:
    """Writes events; processes other than the main one write only their end.

    Raises OutOfSpace on a full disk.
    """
    if not accelerator.is_main_process:
        yield partial(_emit_end_only, folder)
        return
    try:
        writer = EventWriter(folder.events)
        try:
            yield writer.emit
        finally:
            writer.close()
    except OSError as error:
        known = to_likeness_error(error, folder)
        raise known from error


def _emit_end_only(folder: RunFolder, kind: str, **data: Any) -> None:
    """Emits for processes other than the main one: only what ends the run too."""
    if kind in ("failed", "restart", "stopped"):
        writer = EventWriter(folder.events)
        try:
            writer.emit(kind, **data)
        finally:
            writer.close()


class UnexpectedError(LikenessError):
    """An error of any other type: its message is the type's name and its text."""


def to_likeness_error(error: Exception, folder: RunFolder) -> LikenessError:
    """The error to show to the user for any error."""
    if isinstance(error, LikenessError):
        return error
    text = f"{type(error).__name__}: {error}"
    if is_disk_full(error):
        return OutOfSpace(
            "The disk is full. Free some space and start the run again: it resumes from its last "
            f"saved training state.\n{text}"
        )
    if is_out_of_memory(error):
        advice = ""
        with suppress(RecipeError):
            advice = memory_advice(folder.recipe(), memory_tiers.load_tier(folder.tier_file))
        return OutOfMemory(f"Out of memory. {page_file_advice(error) or advice}\n{text}")
    return UnexpectedError(text)
