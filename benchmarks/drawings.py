"""Sides that draw pictures: how they are run, and their table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .measure import Command, Measured, measure
from .options import room
from .table import gigabytes, markdown, not_measured, ratio, spread

SCRIPT = Path(__file__).with_name("drawing.py")
Sides = Mapping[str, tuple[str, Mapping[str, Any]]]  # name -> (way of `drawing.py`, its task)
_HEAD = (
    *("by", "pictures", "seconds a picture: median (quartiles) of the rounds", "ours is faster"),
    *("begins after, s", "first pictures after, s", "peak memory, GB"),
)


def draw(way: str, task: Mapping[str, Any], folder: Path, device: str) -> Measured:
    """One run of one side; its pictures are removed."""
    with room(folder) as place:
        (place / "task.json").write_text(json.dumps({**task, "output": str(place / "pictures")}))
        # Only trainings have a process of their own, and draw class images in it.
        command = Command(
            [str(SCRIPT), way, str(place / "task.json")], ours=way == "our_class_images"
        )
        return measure(command, place, cpu=device == "cpu")


def compare(sides: Sides, folder: Path, device: str, rounds: int) -> dict[str, list[Measured]]:
    """All sides in turn."""
    results: dict[str, list[Measured]] = {}
    for number in range(rounds):
        for side, (way, task) in sides.items():
            run = draw(way, task, folder, device)
            print(f"{side}, {number + 1}: {run.error or f'{a_picture(run):.3g} s'}", flush=True)
            results.setdefault(side, []).append(run)
    return results


def a_picture(run: Measured) -> float:
    """Seconds a picture, from the first moment to the last one written; 0 for none."""
    if not run.drawn or len(run.moments) < 2:
        return 0.0
    return (run.moments[-1] - run.moments[0]) / run.drawn


def whole(rounds: Sequence[Measured]) -> list[Measured]:
    """Those that drew to their end."""
    return [run for run in rounds if a_picture(run) and not run.error]


def table(results: Mapping[str, Sequence[Measured]]) -> str:
    """A row for each side; the first is ours."""
    ours = _median(next(iter(results.values())))
    rows = []
    for number, (side, rounds) in enumerate(results.items()):
        drawn = whole(rounds)
        if not drawn:
            rows.append([side, "", not_measured(rounds)])
            continue
        done = drawn[0]
        rows.append(
            [
                side,
                str(done.drawn),
                spread([a_picture(run) for run in drawn]),
                ratio(_median(rounds), ours) if number else "-",
                f"{done.moments[0]:.1f}",
                f"{done.moments[1]:.1f}",
                gigabytes(max(run.memory for run in rounds)),
            ]
        )
    return markdown(_HEAD, rows)


def _median(rounds: Sequence[Measured]) -> float:
    seconds = [a_picture(run) for run in whole(rounds)]
    return statistics.median(seconds) if seconds else 0.0
