"""Mean scores of one adapter in a comparison. Does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import ComparisonError
from .matrix import read_plan
from .study import PLAN_FILE, SCORES_FILE
from .user_files import read_json


def newest_comparison(comparisons: Path, digest: str) -> Path | None:
    """The newest folder in `comparisons` whose plan has the adapter with `digest`, or None."""
    plans = comparisons.glob(f"*/{PLAN_FILE}")
    found = [path for path in plans if digest in _text(path)]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def _text(path: Path) -> str:
    """The text of a file; "" if it cannot be read, so that it counts as not having the adapter."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def adapter_means(comparison: Path, digest: str) -> dict[str, float]:
    """The adapter's mean of each score in a comparison, as Load Adapter shows it; {} if none.

    Taken from a row at strength 1, preferably without poses. Raises ComparisonError for damaged
    files.
    """
    if not (comparison / SCORES_FILE).is_file():
        return {}
    plan = read_plan(comparison / PLAN_FILE)
    names = [
        variant.name
        for variant in plan.variants
        if variant.adapter == digest and variant.strength_unet == variant.strength_text == 1
    ]
    first = [cell for cell in plan.cells() if cell.column == 0 and cell.variant in names]
    rows = [cell.row for cell in sorted(first, key=lambda cell: cell.with_pose)]
    path = comparison / SCORES_FILE
    try:
        return _means(read_json(path), rows[0]) if rows else {}
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError):
        raise ComparisonError(
            f"{path} is damaged or has another version: delete it, or score the comparison again."
        ) from None


def _means(scores: Any, row: int) -> dict[str, float]:
    """The means of a row in parsed JSON. Malformed data raises whatever indexing it raises."""
    return {
        f"{measure['label']} {measure['key'].partition('.')[2]}": round(float(one["mean"]), 4)
        for measure in scores["measures"]
        for one in [scores["rows"][measure["key"]][row]]
        if one is not None
    }
