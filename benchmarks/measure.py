"""One side in a process of its own, watched from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

CHILD = Path(__file__).with_name("child.py")
POLL_SECONDS = 0.2
WARM_UP = 2  # intervals between steps that are not counted


@dataclass(frozen=True)
class Measured:
    """One run of one side. `memory` is the peak in bytes, of the GPU where there is one."""

    intervals: tuple[float, ...]  # seconds between optimizer steps, after the warm-up
    cpu_intervals: tuple[float, ...]  # the same in seconds of CPU time, of all threads
    first_step: float  # seconds from the start of the process to the end of the first step
    memory: int
    pictures: int
    prompts: int
    error: str = ""


def measure(arguments: list[str], folder: Path, *, cpu: bool) -> Measured:
    """Runs `child.py` in `folder`, offline; an error in it is part of the result."""
    environment = dict(os.environ, HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `job` starts runs
    if cpu:
        environment |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    report = folder / "report.json"
    with open(folder / "log.txt", "wb") as log:
        started = time.time()
        process = subprocess.Popen(
            [sys.executable, str(CHILD), str(report), *arguments],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            memory = watch(process)
        finally:
            process.kill()
    said: dict[str, Any] = {"error": f"ended with code {process.returncode}"}
    if report.is_file():
        said = json.loads(report.read_text(encoding="utf-8"))
    moments = said.get("moments", [])
    return Measured(
        intervals=_between(moments),
        cpu_intervals=_between(said.get("cpu_moments", [])),
        first_step=moments[0] - started if moments else 0.0,
        memory=said.get("gpu_memory") or memory,
        pictures=said.get("pictures", 0),
        prompts=said.get("prompts", 0),
        error=said["error"] if process.returncode else "",
    )


def _between(moments: list[float]) -> tuple[float, ...]:
    return tuple(after - before for before, after in pairwise(moments))[WARM_UP:]


def watch(process: subprocess.Popen[bytes]) -> int:
    """Waits for the process; the peak of the memory (RSS) of it and its children, in bytes."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, _memory(process.pid))
        time.sleep(POLL_SECONDS)
    return peak


def _memory(pid: int) -> int:
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
