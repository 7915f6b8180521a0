"""How a run is asked to stop: a flag file, or the end of the process that started it."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import torch
from accelerate import Accelerator


class StopSignal:
    """Says whether the run should save and end.

    Args:
        flag: a file whose presence asks for it.
        follow_parent: stop as well when standard input closes, because its other end is held by
            the process that started the run.
    """

    def __init__(self, flag: Path, *, follow_parent: bool = False) -> None:
        self._flag = flag
        self._orphaned = threading.Event()
        if follow_parent:
            threading.Thread(target=self._wait_for_parent, daemon=True).start()

    def _wait_for_parent(self) -> None:
        # Unbuffered: Python's exit would wait for the lock of a buffered reader.
        while os.read(sys.stdin.fileno(), 1):
            continue
        self._orphaned.set()

    def requested(self, accelerator: Accelerator) -> bool:
        """Whether to stop; all processes of a run get the main one's answer."""
        here = self._orphaned.is_set() or self._flag.exists()
        if accelerator.num_processes == 1:
            return here
        mine = here and accelerator.is_main_process
        vote = torch.tensor(float(mine), device=accelerator.device)
        return bool(accelerator.reduce(vote, "sum") > 0)
