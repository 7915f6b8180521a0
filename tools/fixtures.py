"""Writes files of runs and comparisons (see docs/file-formats.md) for panels to show."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

THUMBNAIL_SIDE = 384

Event = dict[str, Any]


def event(kind: str, version: int = 1, **data: Any) -> Event:
    """One event of a run."""
    return {"v": version, "kind": kind, "time": time.time(), **data}


def step(number: int, total: int, version: int = 1, **data: Any) -> Event:
    """The event of an optimizer step, with plausible values."""
    values = {
        "loss": 0.1 + 1 / (number + 5),
        "instance_loss": 0.1,
        "prior_loss": None,
        "learning_rate": 1e-4,
        "seconds": 0.2,
        "memory": 2**30,
    }
    return event("step", version, step=number, total=total, **{**values, **data})


def lines(events: Sequence[Event]) -> str:
    """Events as text of a run's events file."""
    return "".join(f"{json.dumps(one)}\n" for one in events)


def write_run(output: Path, name: str, events: Sequence[Event]) -> Path:
    """Writes a run folder with these events below ComfyUI's output folder; returns its path."""
    folder = output / "likeness" / "runs" / name
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text("{}", encoding="utf-8")
    (folder / "events.jsonl").write_text(lines(events), encoding="utf-8")
    return folder


def write_comparison(
    output: Path,
    name: str,
    rows: Sequence[str],
    columns: Sequence[str],
    draw: Callable[[int, int], Image.Image],
) -> Path:
    """Writes a drawn comparison with images of one size; returns its folder.

    `draw` is called with the row and the column of each cell, counted from 0.
    """
    cells = output / "likeness" / "cells"
    thumbnails = output / "likeness" / "cache" / "thumbnails"
    folder = output / "likeness" / "comparisons" / name
    for needed in (cells, thumbnails, folder):
        needed.mkdir(parents=True, exist_ok=True)
    places = [(row, column) for row in range(len(rows)) for column in range(len(columns))]
    stems = [f"{name}-{row}-{column}" for row, column in places]
    for stem, place in zip(stems, places, strict=True):
        image = draw(*place)
        size = image.size
        image.save(cells / f"{stem}.png", compress_level=1)
        image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        image.save(thumbnails / f"{stem}.webp")
    view = {
        "version": 1,
        "rows": list(rows),
        "columns": [{"key": key, "prompt": key, "negative": "", "seed": 0} for key in columns],
        "width": size[0],
        "height": size[1],
        "images": stems,
        "drawn": [time.time_ns() // 1_000_000] * len(stems),
        "poses": [None] * len(stems),
        "sheet": None,
    }
    (folder / "viewer.json").write_text(json.dumps(view), encoding="utf-8")
    return folder


def write_scores(folder: Path, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Adds scores of one measure, a report and a sheet to a comparison.

    Each row's mean is 0.25 higher than the previous row's, with an interval of ± 0.1.
    """
    measure = {"key": "s", "label": "subject match", "encoder": "CLIP", "better": "higher"}
    means = [(number + 1) / 4 for number in range(len(rows))]
    scores = {
        "version": 1,
        "row_names": list(rows),
        "column_names": list(columns),
        "measures": [{**measure, "meaning": "likeness"}],
        "cells": {"s": [mean for mean in means for _ in columns]},
        "rows": {"s": [{"mean": one, "low": one - 0.1, "high": one + 0.1} for one in means]},
        "photographs": {"s": {"mean": 0.9, "low": None, "high": None}},
        "notes": ["DINOv2 is left out."],
    }
    view = json.loads((folder / "viewer.json").read_text(encoding="utf-8"))
    view["sheet"] = "sheet-1.png"
    partial = folder / "viewer.json.partial"  # a page may read the file meanwhile
    partial.write_text(json.dumps(view), encoding="utf-8")
    partial.replace(folder / "viewer.json")
    (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    report = "<!doctype html><h1>the report</h1>"
    (folder / "report.html").write_text(report, encoding="utf-8")
