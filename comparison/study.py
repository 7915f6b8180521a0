"""The files of a drawn comparison: single images, plan, sheet, scores, report."""

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

# Files in a comparison's folder.
PLAN_FILE, SCORES_FILE, REPORT_FILE = "plan.json", "scores.json", "report.html"
RERUN_PLAN_FILE = "comparison-plan.json"  # input of `likeness compare`; PLAN_FILE holds digests

_PARTIAL_KEY = "likeness.begun"  # PNG text key that marks a sheet with missing images
_MAX_SHEETS = 10  # kept per comparison


@dataclass(frozen=True)
class Study:
    """A drawn plan with the image of each cell, in the plan's order.

    `images` are PNG files that are never modified. `folder` holds copies by row and column and
    the sheet, for the latest comparison of that name.
    """

    plan: Plan
    folder: Path
    images: tuple[Path, ...]
    sheet: Path


# Folders below the output folder, ComfyUI's or the terminal's.


def cells_folder(output: Path) -> Path:
    """The folder of all drawn cells, each named by the digest of its inputs."""
    return output / "likeness" / "cells"


def encode_cell_png(image: Image.Image) -> bytes:
    """The bytes of a cell's file."""
    return png(image, compress_level=4)


def study_folder(output: Path, name: str) -> Path:
    """The folder of the comparison `name`."""
    return output / "likeness" / "comparisons" / name


def write_study(
    output: Path,
    name: str,
    plan: Plan,
    images: Sequence[Path],
    suffix: str,
    text: Mapping[str, Any],
    *,
    by_graph: bool = False,
) -> tuple[Study, Image.Image]:
    """Writes the images as ``<row>/768x1024/<key>.<suffix>``, with plan and sheet.

    Deletes what the previous plan left in the folder: its single images, scores and report if
    the images changed, and all but the newest sheets.

    Args:
        images: a PNG file for each of the plan's cells.
        suffix: "png" or "jpg".
        text: text chunks of the sheet's PNG.
        by_graph: whether a user's graph draws the cells. The plan's defaults do not describe the
            graph's settings then, so only fields that were set are written.
    """
    folder = study_folder(output, name)
    former, laid_out, redrawn = _previous_files(folder), set[str](), False
    for cell, image in zip(plan.cells(), images, strict=True):
        if image.is_file():
            place, data = plan.file_path(cell, suffix), _encode_image(image, suffix)
            laid_out.add(place)
            if _has_content(folder / place, data):
                continue
            redrawn = redrawn or (folder / place).is_file()
            write_atomic(folder / place, data)
    here = {place.lower() for place in laid_out}  # the file system may ignore case
    for place in former:
        if place.lower() not in here:
            _remove(folder / place)
    write_atomic(folder / PLAN_FILE, plan.to_json(given=by_graph))
    if by_graph:
        (folder / RERUN_PLAN_FILE).unlink(missing_ok=True)  # from the terminal, same name
    sheet, path = draw_sheet(plan, images), _sheet_file(folder, plan, images)
    if redrawn or newest_sheet(folder) != path:
        for name in (SCORES_FILE, REPORT_FILE):
            (folder / name).unlink(missing_ok=True)
    write_sheet(path, sheet, text)
    keep_newest(folder, "sheet-*.png")
    return Study(plan, folder, tuple(images), path), sheet


def write_partial_study(
    output: Path, name: str, plan: Plan, images: Sequence[Path], text: Mapping[str, Any]
) -> tuple[Study, Image.Image]:
    """Writes only the sheet, with empty frames for missing images.

    Everything else in the folder is kept, including a complete sheet of the same study.
    """
    folder = study_folder(output, name)
    sheet, path = draw_sheet(plan, images), _sheet_file(folder, plan, images)
    if not path.is_file() or _is_partial(path):
        write_sheet(path, sheet, {**text, _PARTIAL_KEY: "some images were not there yet"})
    return Study(plan, folder, tuple(images), path), sheet


def _sheet_file(folder: Path, plan: Plan, images: Sequence[Path]) -> Path:
    digest = hashlib.sha256("".join([plan.to_json(), *(p.name for p in images)]).encode())
    return folder / f"sheet-{digest.hexdigest()[:12]}.png"


def keep_newest(folder: Path, pattern: str) -> None:
    """Deletes all but the newest files that match a pattern.

    Some older ones are kept because ComfyUI's queue history still shows them.
    """
    for path in _by_time(folder, pattern)[_MAX_SHEETS:]:
        path.unlink(missing_ok=True)


def _by_time(folder: Path, pattern: str) -> list[Path]:
    """The files that match a pattern, newest first."""
    return sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _is_partial(sheet: Path) -> bool:
    """Whether a sheet was written by `write_partial_study`."""
    try:
        with Image.open(sheet) as image:
            return _PARTIAL_KEY in image.info
    except OSError:
        return False


def _previous_files(folder: Path) -> set[str]:
    """Paths of the single images of the plan last written to a folder."""
    try:
        plan = read_plan(folder / PLAN_FILE)
    except ComparisonError:
        return set()
    return {plan.file_path(cell, suffix) for cell in plan.cells() for suffix in ("png", "jpg")}


def _has_content(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


def _remove(image: Path) -> None:
    """Deletes an image, and its folders if that leaves them empty."""
    image.unlink(missing_ok=True)
    for folder in (image.parent, image.parent.parent):
        with suppress(OSError):
            folder.rmdir()


def newest_sheet(folder: Path) -> Path | None:
    """The newest complete sheet of a comparison, or None."""
    sheets = _by_time(folder, "sheet-*.png")
    return next((sheet for sheet in sheets if not _is_partial(sheet)), None)


def _encode_image(path: Path, suffix: str) -> bytes:
    if suffix == "png":
        return path.read_bytes()
    data = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(data, "JPEG", quality=95, subsampling=0)
    return data.getvalue()


def draw_sheet(
    plan: Plan, images: Sequence[Path], notes: Sequence[str] | None = None
) -> Image.Image:
    """The labelled sheet of a plan's images, which are in the order of its cells.

    `notes` holds a line of text to print below each image.
    """
    rows, columns = plan.rows(), plan.columns()
    across = len(columns)
    starts = range(0, len(images), across)
    return contact_sheet(
        [Label(row) for row in rows],
        [Label(cell.key, cell.prompt) for cell in plan.cells()[:across]],
        [images[start : start + across] for start in starts],
        notes=None if notes is None else [notes[start : start + across] for start in starts],
    )
