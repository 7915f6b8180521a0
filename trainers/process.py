"""The main function of a run's own process: its lock, its events and its last word."""

from __future__ import annotations

import logging
import time
import traceback
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .errors import LikenessError, RunFailed
from .events import Emit, EventWriter
from .runs import RunFolder


def run_process(path: Path, *, follow_parent: bool) -> int:
    """Trains the prepared run in `path`; returns the exit code.

    Everything that goes wrong is said as an event `failed`, with the traceback in the log.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    folder, start = RunFolder(path.absolute()), time.time()
    from accelerate import Accelerator  # seconds: after the first checks

    accelerator = Accelerator(mixed_precision="no")
    try:
        lock = _locked(folder, accelerator.is_main_process)
    except RunFailed as error:
        # Not an event: the file belongs to the process that holds the lock.
        logging.getLogger(__name__).error("%s", error)
        return 1
    writer = EventWriter(folder.events) if accelerator.is_main_process else None
    emit = writer.emit if writer else _silent
    try:
        with lock:
            return _train(folder, accelerator, emit, follow_parent, start)
    except LikenessError as error:
        emit("failed", message=str(error), expected=True)
    except Exception as error:  # noqa: BLE001  the last place where it can be told
        traceback.print_exc()
        emit("failed", message=_explained(error), expected=False)
    finally:
        if writer:
            writer.close()
    return 1


def _train(
    folder: RunFolder, accelerator: Any, emit: Emit, follow_parent: bool, start: float
) -> int:
    from .loop import train
    from .stop import StopSignal

    stop = StopSignal(folder.stop, follow_parent=follow_parent and accelerator.is_main_process)
    result = train(folder, accelerator, emit, stop)
    if result.stopped:
        emit("stopped", step=result.steps)
    emit("finished", seconds=time.time() - start)
    return 0


def _locked(folder: RunFolder, main: bool) -> AbstractContextManager[Any]:
    """A lock on the run's folder, which the system frees when the process ends in any way."""
    if not main:
        return nullcontext()
    lock = FileLock(folder.lock, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunFailed(
            f"This run is being trained by another process already ({folder.path.name})."
        ) from None
    return lock


def _silent(kind: str, **data: Any) -> None:
    """What processes other than the main one say."""


def _explained(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    if "out of memory" in text.lower():
        return (
            "Out of memory. Try gradient checkpointing, 8-bit Adam, a lower resolution or batch "
            f"1, or close other programs that use the GPU.\n{text}"
        )
    if isinstance(error, OSError) and error.errno == 28:
        return f"The disk is full; free some space and queue again, the run goes on.\n{text}"
    return text
