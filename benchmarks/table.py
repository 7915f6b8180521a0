"""Formats results as Markdown."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .measure import Measurement

PACKAGES = ["torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes"]
STEPS = 800  # of the study's trainings


def machine(cpu: bool) -> str:
    """Two lines that describe the hardware and the relevant versions."""
    import torch

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


# Cells.


def format_quartiles(values: Sequence[float]) -> str:
    """Median and quartiles, ``1.5 (1.4 to 1.7)``; a single value as is; a dash for none."""
    if len(values) < 2:
        return f"{values[0]:.3g}" if values else "-"
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:.3g} ({low:.3g} to {high:.3g})"


def gigabytes(size: float) -> str:
    """Bytes in GB, with three digits below 10 GB."""
    return f"{size / 1e9:.1f}" if size >= 10e9 else f"{size / 1e9:.3g}"


def format_ratio(of: float, to: float) -> str:
    """``1.53 x``, or a dash if either was not measured."""
    return f"{of / to:.2f} x" if of and to else "-"


def not_measured(rounds: Iterable[Measurement]) -> str:
    """A short reason why there is no result."""
    failed = next((run.error for run in rounds if run.error), "")
    reason = " ".join(failed.split())[:160].replace("|", "/")
    return f"not measured: {reason or 'too few steps'}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; short rows are padded with empty cells."""
    lines = [head, ["---"] * len(head)]
    lines += [[*row, *[""] * (len(head) - len(row))] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# Statistics over several rounds of one side.


def intervals(rounds: Iterable[Measurement]) -> list[float]:
    """Seconds of all steps of all rounds, after each round's warm-up."""
    return [seconds for run in rounds for seconds in run.intervals]


def median_step(rounds: Sequence[Measurement]) -> float:
    """Median seconds of a step, or 0 if none was measured."""
    values = intervals(rounds)
    return statistics.median(values) if values else 0.0


def whole_run(rounds: Sequence[Measurement], steps: int = STEPS) -> float:
    """Estimated seconds from start to saved adapter for a run of `steps`.

    Start-up with the first step and saving take as long as measured; each other step takes the
    median.
    """
    step = median_step(rounds)
    ends = statistics.median(run.first + run.after for run in rounds)
    return ends + (steps - 1) * step if step else 0.0


# The table of trainings.

Rounds = Mapping[tuple[str, str, str], Sequence[Measurement]]  # by precision, case and side
_FAST = ("", "full")  # memory tiers that are not mentioned
_HEAD = (
    *("training", "by", "step, s: median (quartiles)", "ours is faster", "step, s of CPU time"),
    *("first step after, s", f"{STEPS} steps and saved, s (extrapolated)", "peak memory, GB"),
    *("images encoded", "prompts encoded"),
)


def trainings(results: Rounds, ours: str) -> str:
    """A row for each (precision, case, side), over its successful rounds."""
    rows = []
    for (precision, case, side), rounds in results.items():
        whole = [run for run in rounds if not run.error]
        if len(intervals(whole)) < 2:
            rows.append([f"{case}, {precision}", side, not_measured(rounds)])
            continue
        tier = "" if whole[0].tier in _FAST else f", tier {whole[0].tier}"
        own = results.get((precision, case, ours), ())
        faster = "-" if side == ours else format_ratio(median_step(whole), median_step(own))
        rows.append([f"{case}, {precision}", f"{side}{tier}", *_figures(whole, faster)])
    return markdown(_HEAD, rows)


def _figures(rounds: Sequence[Measurement], faster: str) -> list[str]:
    return [
        format_quartiles(intervals(rounds)),
        faster,
        format_quartiles([seconds for run in rounds for seconds in run.cpu_intervals]),
        f"{statistics.median(run.first for run in rounds):.1f}",
        f"{whole_run(rounds):,.0f}",
        gigabytes(max(run.memory for run in rounds)),
        str(rounds[0].images),
        str(rounds[0].prompts),
    ]
