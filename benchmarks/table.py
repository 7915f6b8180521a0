"""Results as Markdown."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .measure import Measured

PACKAGES = ["torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes"]
_HEAD = (
    "| training | by | step, s: median (quartiles) | step, s of CPU time | first step after, s "
    "| peak memory, GB | pictures encoded | prompts encoded |\n|---|---|---|---|---|---|---|---|"
)


def machine(cpu: bool) -> str:
    """The machine's kind and the versions that matter, in two lines."""
    name = f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used"
    if not cpu:
        name = f"{torch.cuda.get_device_name()}; {name}"
    versions = [f"Python {platform.python_version()}", *map(_version, PACKAGES)]
    return f"{name}, {platform.system()}\n{', '.join(versions)}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.machine())


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def markdown(results: Mapping[tuple[str, str], Sequence[Measured]]) -> str:
    """A row for each (training, side), its rounds taken together."""
    return "\n".join([_HEAD, *(_row(*key, rounds) for key, rounds in results.items())])


def _row(case: str, side: str, rounds: Sequence[Measured]) -> str:
    failed = next((run.error for run in rounds if run.error), "")
    if sum(len(run.intervals) for run in rounds) < 2:
        reason = " ".join(failed.split())[:160].replace("|", "/") or "too few steps"
        return f"| {case} | {side} | not measured: {reason} | | | | | |"
    cells = [
        case,
        side,
        _shown([seconds for run in rounds for seconds in run.intervals]),
        _shown([seconds for run in rounds for seconds in run.cpu_intervals]),
        f"{statistics.median(run.first_step for run in rounds):.1f}",
        f"{max(run.memory for run in rounds) / 1e9:.1f}",
        str(rounds[0].pictures),
        str(rounds[0].prompts),
    ]
    return f"| {' | '.join(cells)} |"


def _shown(values: list[float]) -> str:
    """Median and quartiles of at least two values."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:.3g} ({low:.3g} to {high:.3g})"
