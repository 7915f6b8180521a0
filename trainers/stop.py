"""How a run is asked to stop: a flag file, or the end of the process that started it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from .errors import RunCancelled


class StopRequest(IntEnum):
    """What a run is asked between two steps; of several the highest counts."""

    NONE = 0
    CHECKPOINT = 1  # save the state and go on
    SAVE = 2  # save the state and the adapter, and end
    LEAVE = 3  # save the state and end


def on_parent_exit(call: Callable[[], Any]) -> None:
    """Calls it in a thread once standard input closes, whose other end the parent holds open.

    Standard input is empty from then on: on Windows whatever else asks for a pipe that is being
    read waits until it closes, a compiler that was started, say.
    """
    pipe, empty = os.dup(sys.stdin.fileno()), os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, sys.stdin.fileno())
    os.close(empty)

    def wait() -> None:
        # Unbuffered: Python's exit would wait for the lock of a buffered reader.
        while os.read(pipe, 1):
            continue
        call()

    threading.Thread(target=wait, daemon=True).start()


class StopSignal:
    """Says whether the run should end, and how.

    A flag file asks to save what is learned (`StopRequest.SAVE`). The end of the parent, of its
    pipe, or SIGTERM ask to end at a checkpoint (`StopRequest.LEAVE`).

    Args:
        flag: a file whose presence asks for it.
        follow_parent: leave when standard input closes, because its other end is held by the
            process that started the run.
    """

    def __init__(self, flag: Path, *, follow_parent: bool = False) -> None:
        self._flag = flag
        self._terminating = threading.Event()
        if follow_parent:
            on_parent_exit(self._terminating.set)

    def handle_sigterm(self) -> None:
        """From now on SIGTERM asks to leave. Call from the main thread."""
        signal.signal(signal.SIGTERM, lambda number, frame: self._terminating.set())

    def local_request(self) -> StopRequest:
        """What this process was asked; other processes of the run may not know of it."""
        if self._terminating.is_set():
            return StopRequest.LEAVE
        return StopRequest.SAVE if self._flag.exists() else StopRequest.NONE

    def asked(self, accelerator: Accelerator, *, save_due: bool = False) -> StopRequest:
        """What to do after a step; all processes of a run get the main one's answer.

        `save_due` says that a checkpoint is due by the main process's clock.
        """
        ask = self.local_request() or StopRequest(save_due)
        if accelerator.num_processes == 1:
            return ask
        mine = ask if accelerator.is_main_process else StopRequest.NONE
        vote = torch.tensor(float(mine), device=accelerator.device)
        return StopRequest(round(float(accelerator.reduce(vote, "sum"))))

    def check(self) -> None:
        """Raises RunCancelled if this process was asked to end, before there is a state to save."""
        if self.local_request():
            raise RunCancelled(
                "The run was stopped before its first step. Class images and encoded pictures "
                "are kept; start it again to go on."
            )
