"""Runs the sides of a drawing benchmark, and formats their table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .measure import Command, Measurement, measure
from .options import temporary_folder
from .table import format_quartiles, format_ratio, gigabytes, markdown, not_measured

SCRIPT = Path(__file__).with_name("draw_worker.py")
Sides = Mapping[str, tuple[str, Mapping[str, Any]]]  # name -> (name in `draw_worker.TASKS`, task)
_HEAD = (
    *("by", "images", "seconds per image: median (quartiles) of the rounds", "ours is faster"),
    *("begins after, s", "first images after, s", "peak memory, GB"),
)


def draw(way: str, task: Mapping[str, Any], folder: Path, device: str) -> Measurement:
    """Runs one side once; deletes its images."""
    with temporary_folder(folder) as place:
        (place / "task.json").write_text(json.dumps({**task, "output": str(place / "images")}))
        # Only class images are drawn in a training's own process, with its environment.
        command = Command(
            [str(SCRIPT), way, str(place / "task.json")], ours=way == "our_class_images"
        )
        return measure(command, place, cpu=device == "cpu")


def compare(sides: Sides, folder: Path, device: str, rounds: int) -> dict[str, list[Measurement]]:
    """Runs all sides in turn."""
    results: dict[str, list[Measurement]] = {}
    for number in range(rounds):
        for side, (way, task) in sides.items():
            run = draw(way, task, folder, device)
            print(
                f"{side}, {number + 1}: {run.error or f'{seconds_per_image(run):.3g} s'}",
                flush=True,
            )
            results.setdefault(side, []).append(run)
    return results


def seconds_per_image(run: Measurement) -> float:
    """Seconds per image, from the first moment to the last image written; 0 without any."""
    if not run.drawn or len(run.moments) < 2:
        return 0.0
    return (run.moments[-1] - run.moments[0]) / run.drawn


def finished(rounds: Sequence[Measurement]) -> list[Measurement]:
    """The rounds that completed."""
    return [run for run in rounds if seconds_per_image(run) and not run.error]


def table(results: Mapping[str, Sequence[Measurement]]) -> str:
    """The table with a row for each side; the first is ours."""
    ours = _median(next(iter(results.values())))
    rows = []
    for number, (side, rounds) in enumerate(results.items()):
        drawn = finished(rounds)
        if not drawn:
            rows.append([side, "", not_measured(rounds)])
            continue
        done = drawn[0]
        rows.append(
            [
                side,
                str(done.drawn),
                format_quartiles([seconds_per_image(run) for run in drawn]),
                format_ratio(_median(rounds), ours) if number else "-",
                f"{done.moments[0]:.1f}",
                f"{done.moments[1]:.1f}",
                gigabytes(max(run.memory for run in rounds)),
            ]
        )
    return markdown(_HEAD, rows)


def _median(rounds: Sequence[Measurement]) -> float:
    seconds = [seconds_per_image(run) for run in finished(rounds)]
    return statistics.median(seconds) if seconds else 0.0
