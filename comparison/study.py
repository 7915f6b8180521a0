"""A comparison that is drawn, and its files: single pictures, plan, sheet, scores, report."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..trainers.files import write_atomic
from ..trainers.image_io import png
from .errors import ComparisonError
from .matrix import Plan, read_plan
from .sheet import Label, contact_sheet, write_sheet

# In the folder of a comparison.
PLAN_FILE, SCORES_FILE, REPORT_FILE = "plan.json", "scores.json", "report.html"
RERUN_PLAN_FILE = "comparison-plan.json"  # for `likeness compare`; PLAN_FILE is of digests

_PARTIAL_KEY = "likeness.begun"  # marks a sheet of which some pictures were not there yet
_MAX_SHEETS = 10  # sheets of a comparison


@dataclass(frozen=True)
class Study:
    """A plan that is drawn, and the picture of each of its cells in order.

    `pictures` are PNG files that stay as they are; `folder` has them by row and column, with the
    sheet, and shows the last comparison of that name.
    """

    plan: Plan
    folder: Path
    pictures: tuple[Path, ...]
    sheet: Path


# Below an output folder: ComfyUI's, or the terminal's.


def cells_folder(output: Path) -> Path:
    """Where each cell ever drawn is kept, named by the digest of all that decides it."""
    return output / "likeness" / "cells"


def encode_cell_png(picture: Image.Image) -> bytes:
    """The file of a cell."""
    return png(picture, compress_level=4)


def study_folder(output: Path, name: str) -> Path:
    """Where the comparison `name` is laid out."""
    return output / "likeness" / "comparisons" / name


def write_study(
    output: Path,
    name: str,
    plan: Plan,
    pictures: Sequence[Path],
    suffix: str,
    text: Mapping[str, Any],
    *,
    by_graph: bool = False,
) -> tuple[Study, Image.Image]:
    """Lays the pictures out as ``<row>/768x1024/<key>.<suffix>``, with plan and sheet.

    What the folder has of the former plan goes away: its single pictures, scores and report of
    other pictures, and all but the newest of its sheets.

    Args:
        pictures: a PNG file for each of the plan's cells.
        suffix: "png" or "jpg".
        text: text chunks of the sheet's PNG.
        by_graph: whether a user's graph draws the cells; its settings are then not the plan's,
            whose file leaves out what nobody gave it.
    """
    folder = study_folder(output, name)
    former, laid_out, redrawn = _previous_files(folder), set[str](), False
    for cell, picture in zip(plan.cells(), pictures, strict=True):
        if picture.is_file():
            place, data = plan.file_path(cell, suffix), _encode_picture(picture, suffix)
            laid_out.add(place)
            if _has_content(folder / place, data):
                continue
            redrawn = redrawn or (folder / place).is_file()
            write_atomic(folder / place, data)
    here = {place.lower() for place in laid_out}  # a file system may ignore case
    for place in former:
        if place.lower() not in here:
            _remove(folder / place)
    write_atomic(folder / PLAN_FILE, plan.to_json(given=by_graph))
    if by_graph:
        (folder / RERUN_PLAN_FILE).unlink(missing_ok=True)  # of a comparison of that name elsewhere
    sheet, path = draw_sheet(plan, pictures), _sheet_file(folder, plan, pictures)
    if redrawn or newest_sheet(folder) != path:
        for name in (SCORES_FILE, REPORT_FILE):
            (folder / name).unlink(missing_ok=True)
    write_sheet(path, sheet, text)
    keep_newest(folder, "sheet-*.png")
    return Study(plan, folder, tuple(pictures), path), sheet


def write_partial_study(
    output: Path, name: str, plan: Plan, pictures: Sequence[Path], text: Mapping[str, Any]
) -> tuple[Study, Image.Image]:
    """As `write_study`, but the sheet alone, in which pictures that are not there are empty frames.

    All else in the folder stays, and so does the whole sheet of an equal study.
    """
    folder = study_folder(output, name)
    sheet, path = draw_sheet(plan, pictures), _sheet_file(folder, plan, pictures)
    if not path.is_file() or _is_partial(path):
        write_sheet(path, sheet, {**text, _PARTIAL_KEY: "some pictures were not there yet"})
    return Study(plan, folder, tuple(pictures), path), sheet


def _sheet_file(folder: Path, plan: Plan, pictures: Sequence[Path]) -> Path:
    digest = hashlib.sha256("".join([plan.to_json(), *(p.name for p in pictures)]).encode())
    return folder / f"sheet-{digest.hexdigest()[:12]}.png"


def keep_newest(folder: Path, pattern: str) -> None:
    """Takes all files of a pattern but the newest away.

    Those of former comparisons are shown by a browser's list of what was queued.
    """
    for path in _by_time(folder, pattern)[_MAX_SHEETS:]:
        path.unlink(missing_ok=True)


def _by_time(folder: Path, pattern: str) -> list[Path]:
    """The files of a pattern, the newest first."""
    return sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _is_partial(sheet: Path) -> bool:
    """Whether a sheet was written by `write_partial_study`."""
    try:
        with Image.open(sheet) as image:
            return _PARTIAL_KEY in image.info
    except OSError:
        return False


def _previous_files(folder: Path) -> set[str]:
    """Where the single pictures of the plan are that was written into a folder last."""
    try:
        plan = read_plan(folder / PLAN_FILE)
    except ComparisonError:
        return set()
    return {plan.file_path(cell, suffix) for cell in plan.cells() for suffix in ("png", "jpg")}


def _has_content(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


def _remove(picture: Path) -> None:
    """Takes a picture away, and its folders where they are empty then."""
    picture.unlink(missing_ok=True)
    for folder in (picture.parent, picture.parent.parent):
        with suppress(OSError):
            folder.rmdir()


def newest_sheet(folder: Path) -> Path | None:
    """The whole sheet of a comparison that was written last, None where there is none."""
    sheets = _by_time(folder, "sheet-*.png")
    return next((sheet for sheet in sheets if not _is_partial(sheet)), None)


def _encode_picture(picture: Path, suffix: str) -> bytes:
    if suffix == "png":
        return picture.read_bytes()
    data = io.BytesIO()
    with Image.open(picture) as image:
        image.convert("RGB").save(data, "JPEG", quality=95, subsampling=0)
    return data.getvalue()


def draw_sheet(
    plan: Plan, pictures: Sequence[Path], notes: Sequence[str] | None = None
) -> Image.Image:
    """The labelled sheet of a plan's pictures, in the order of its cells.

    `notes` are lines below them, one for each.
    """
    rows, columns = plan.rows(), plan.columns()
    across = len(columns)
    starts = range(0, len(pictures), across)
    return contact_sheet(
        [Label(row) for row in rows],
        [Label(cell.key, cell.prompt) for cell in plan.cells()[:across]],
        [pictures[start : start + across] for start in starts],
        notes=None if notes is None else [notes[start : start + across] for start in starts],
    )
