"""Stop requests to a run: a flag file, SIGTERM, or the end of the process that started it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from .errors import RunCancelled

VOTE_DELAY = 1  # steps until several processes act on a request


class StopRequest(IntEnum):
    """What a run is asked to do between two steps; of several requests the highest wins."""

    NONE = 0
    CHECKPOINT = 1  # save the state and continue
    SAVE = 2  # save the state and the adapter, and exit
    LEAVE = 3  # save the state and exit


def on_parent_exit(call: Callable[[], Any]) -> None:
    """Calls `call` in a thread once standard input, held open by the parent, is closed.

    Standard input is empty from then on: on Windows, another user of a pipe that is being read,
    such as a compiler that was started, would block until it closes.
    """
    pipe, empty = os.dup(sys.stdin.fileno()), os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, sys.stdin.fileno())
    os.close(empty)

    def wait() -> None:
        # Unbuffered: at exit Python would wait for the lock of a buffered reader.
        while os.read(pipe, 1):
            continue
        call()

    threading.Thread(target=wait, daemon=True).start()


class StopSignal:
    """Tells whether the run should end, and how.

    A flag file requests `StopRequest.SAVE`. The end of the parent, which closes its pipe, and
    SIGTERM request `StopRequest.LEAVE`.

    Args:
        flag: the flag file, whose presence is the request.
        follow_parent: leave when standard input closes, whose other end is held by the process
            that started the run.
    """

    def __init__(self, flag: Path, *, follow_parent: bool = False) -> None:
        self._flag = flag
        self._terminating = threading.Event()
        self._votes: deque[Tensor] = deque()  # of the newest steps, on the device
        if follow_parent:
            on_parent_exit(self._terminating.set)

    def handle_sigterm(self) -> None:
        """Makes SIGTERM a request to leave. Call from the main thread."""
        signal.signal(signal.SIGTERM, lambda number, frame: self._terminating.set())

    def local_request(self) -> StopRequest:
        """The request to this process; other processes of the run may not know of it."""
        if self._terminating.is_set():
            return StopRequest.LEAVE
        return StopRequest.SAVE if self._flag.exists() else StopRequest.NONE

    def asked(self, accelerator: Accelerator, *, save_due: bool = False) -> StopRequest:
        """The request after a step; all processes of a run get the main one's, a step later.

        `save_due`: a checkpoint is due by the main process's clock.
        """
        ask = self.local_request() or StopRequest(save_due)
        if accelerator.num_processes == 1:
            return ask
        mine = ask if accelerator.is_main_process else StopRequest.NONE
        vote = torch.full((), float(mine), device=accelerator.device)
        self._votes.append(accelerator.reduce(vote, "sum"))
        if len(self._votes) <= VOTE_DELAY:
            return StopRequest.NONE
        # Read late: the host does not wait for the step that it has just launched.
        asked = round(float(self._votes.popleft()))
        while asked and self._votes:  # a checkpoint takes long anyway, and answers them all
            asked = max(asked, round(float(self._votes.popleft())))
        return StopRequest(asked)

    def check(self) -> None:
        """Raises RunCancelled if this process was asked to stop before there is a state to save."""
        if self.local_request():
            raise RunCancelled(
                "The run was stopped before its first step. Class images and encoded images "
                "are kept; start it again to resume."
            )
