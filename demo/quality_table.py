"""Formats quality.jsonl as tables of means with 95 % intervals over people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..comparison.estimates import MIN_GROUPS, percentile_interval

COLUMNS = ("identity", "prompt", "token", "drift", "joints", "joints_controlled")
_RESAMPLES = 10_000


def interval(
    values: Mapping[Any, Sequence[float]], seed: int = 0
) -> tuple[float, tuple[float, float] | None]:
    """Mean, and its 95 % bootstrap interval over people; None for fewer than MIN_GROUPS.

    `values` has each person's values. Whole people are resampled, because seeds of one person are
    not independent (cluster bootstrap, Davison and Hinkley 1997, 3.8). Raises ValueError without
    values.
    """
    means: NDArray[np.float64] = np.array([np.mean(v) for v in values.values() if len(v)])
    if not len(means):
        raise ValueError("there are no numbers")
    if len(means) < MIN_GROUPS:
        return float(means.mean()), None
    rows = np.random.default_rng(seed).integers(len(means), size=(_RESAMPLES, len(means)))
    return float(means.mean()), percentile_interval(means[rows].mean(axis=1), len(means))


def table(lines: Iterable[Mapping[str, Any]]) -> str:
    """A Markdown table with a row for each combination of row, steps and settings."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for line in lines:
        key = (line["row"], line["steps"], " ".join(line["settings"]))
        groups.setdefault(key, []).append(line)
    head = ["model", "steps", "settings", "people", "runs", "seconds", *COLUMNS]
    rows = [head, ["---"] * len(head)]
    for (row, steps, settings), found in groups.items():
        people = {line["person"] for line in found}
        seconds = np.mean([line["train_seconds"] for line in found])
        cells = [_cell(found, column) for column in COLUMNS]
        rows.append([row, str(steps), settings, str(len(people)), str(len(found)),
                     f"{seconds:.0f}", *cells])  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _cell(lines: Sequence[Mapping[str, Any]], column: str) -> str:
    """Mean and interval of a column, or a dash if it was not measured."""
    values: dict[Any, list[float]] = {}
    for line in lines:
        if line[column] is not None:
            values.setdefault(line["person"], []).append(line[column])
    if not values:
        return "–"
    mean, between = interval(values)
    return f"{mean:.2f}" + (f" ({between[0]:.2f} to {between[1]:.2f})" if between else "")
