"""Runs one side in its own process and measures it from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from likeness.trainers.job import with_passive_openmp

WORKER = Path(__file__).with_name("worker.py")
POLL_SECONDS = 0.2
WARM_UP = 2  # step intervals to discard


@dataclass(frozen=True)
class Command:
    """Arguments of `worker.py`, and the Python that runs it."""

    arguments: Sequence[str]
    python: str = sys.executable
    ours: bool = False


@dataclass(frozen=True)
class PeakMemory:
    """Peak memory of a process and its children, in bytes.

    `anonymous` excludes pages of mapped files, which the system can drop at any time.
    """

    resident: int = 0
    anonymous: int = 0

    def maximum(self, other: PeakMemory) -> PeakMemory:
        """The elementwise maximum."""
        return PeakMemory(
            max(self.resident, other.resident), max(self.anonymous, other.anonymous)
        )  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One run of one side.

    `moments` are the ends of its optimizer steps (or drawn batches) in seconds since its process
    started, `cpu_moments` the same in CPU seconds; `total` is the process's whole duration.
    """

    moments: Sequence[float] = ()
    cpu_moments: Sequence[float] = ()
    total: float = 0.0
    peak: PeakMemory = PeakMemory()
    gpu_memory: int = 0
    images: int = 0  # through the VAE's encoder
    prompts: int = 0  # through the text encoder
    drawn: int = 0
    losses: Sequence[float] = ()
    stages: Mapping[str, float] = field(default_factory=dict)  # ours: seconds by stage
    flops: float = 0.0  # of one step
    tier: str = ""  # ours: the memory tier
    error: str = ""

    @property
    def intervals(self) -> tuple[float, ...]:
        """Seconds between optimizer steps, after the warm-up."""
        return _between(self.moments)

    @property
    def cpu_intervals(self) -> tuple[float, ...]:
        """CPU seconds between optimizer steps, over all threads, after the warm-up."""
        return _between(self.cpu_moments)

    @property
    def first(self) -> float:
        """Seconds from the start of the process to the end of the first step."""
        return self.moments[0] if self.moments else 0.0

    @property
    def after(self) -> float:
        """Seconds from the end of the last step to the end of the process."""
        return self.total - self.moments[-1] if self.moments else 0.0

    @property
    def memory(self) -> int:
        """Peak memory in bytes, of the GPU if one is used."""
        return self.gpu_memory or self.peak.resident


def measure(command: Command, folder: Path, *, cpu: bool) -> Measurement:
    """Runs `worker.py` in `folder`, offline; its errors are returned in the result."""
    environment = dict(os.environ, HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    if command.ours:
        environment = with_passive_openmp(environment)  # as `job` starts runs
    if cpu:
        environment |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    with open(folder / "log.txt", "wb") as log:
        started = time.time()
        process = subprocess.Popen(
            [command.python, str(WORKER), str(report), *command.arguments],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            peak = monitor_memory(process)
        finally:
            process.kill()
    said: dict[str, Any] = {"error": f"ended with code {process.returncode}"}
    if report.is_file():
        said = json.loads(report.read_text(encoding="utf-8"))
    return parse_report(said, started, time.time(), peak, process.returncode)


def parse_report(
    said: dict[str, Any], started: float, ended: float, peak: PeakMemory, code: int | None
) -> Measurement:
    """A child's report, with times relative to its start; its error counts only if it failed."""
    said["moments"] = [moment - started for moment in said.get("moments", [])]
    said["error"] = said.get("error", "") if code else ""
    return Measurement(**said, total=ended - started, peak=peak)


def _between(moments: Sequence[float]) -> tuple[float, ...]:
    return tuple(after - before for before, after in pairwise(moments))[WARM_UP:]


def monitor_memory(process: subprocess.Popen[bytes]) -> PeakMemory:
    """Waits for the process; returns its peak memory."""
    peak = PeakMemory()
    while process.poll() is None:
        peak = peak.maximum(_memory(process.pid))
        time.sleep(POLL_SECONDS)
    return peak


def _memory(pid: int) -> PeakMemory:
    resident = anonymous = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return PeakMemory()
    for process in family:
        try:
            now = process.memory_info()
        except psutil.NoSuchProcess:
            continue
        resident += now.rss
        anonymous += now.rss - getattr(now, "shared", 0)
    return PeakMemory(resident, anonymous)
