"""Results as Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .measure import Measured, spread

PACKAGES = ["torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes"]
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
_HEAD = (
    "| training | by | step, s: median (quartiles) | first step after, s | peak memory, GB "
    "| pictures encoded | prompts encoded |\n|---|---|---|---|---|---|---|"
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
    intervals = [seconds for run in rounds for seconds in run.intervals]
    if failed and not intervals:
        reason = " ".join(failed.split())[:160].replace("|", "/")
        return f"| {case} | {side} | did not run: {reason} | | | | |"
    step, first = spread(intervals), spread([run.first_step for run in rounds] * 2)
    memory = max(run.memory for run in rounds) / 1e9
    return (
        f"| {case} | {side} | {step.median:.3g} ({step.low:.3g} to {step.high:.3g}) "
        f"| {first.median:.1f} | {memory:.1f} | {rounds[0].pictures} | {rounds[0].prompts} |"
    )


def put_into(page: Path, text: str) -> None:
    """Replaces what lies between the two marks of a Markdown page. Raises ValueError."""
    old = page.read_text(encoding="utf-8")
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has not both marks {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
