"""The files of a comparison below ComfyUI's output folder: cells, single pictures, sheet."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..comparison.errors import ComparisonError
from ..comparison.matrix import Plan
from ..comparison.sheet import Label, contact_sheet, write_sheet
from ..trainers.files import write_whole


@dataclass(frozen=True)
class Study:
    """LIKENESS_STUDY: a plan that is drawn, and the picture of each of its cells in order.

    `pictures` are PNG files that stay as they are; `folder` has them by row and column, with the
    sheet, and shows the last comparison of that name.
    """

    plan: Plan
    folder: Path
    pictures: tuple[Path, ...]
    sheet: Path


def cache_folder(output: Path) -> Path:
    """Where digests of large files are remembered."""
    return output / "likeness" / "cache"


def cells_folder(output: Path) -> Path:
    """Where each cell ever drawn is kept, named by the digest of all that decides it."""
    return output / "likeness" / "cells"


def study_folder(output: Path, name: str) -> Path:
    """Where the comparison `name` is laid out."""
    return output / "likeness" / "comparisons" / name


def chosen_cells(plan: Plan, text: str) -> set[int]:
    """Indices of the cells that `text` names: ``row / column``, or a row or a column alone, a line.

    ``*`` stands for any letters. Raises ComparisonError for a line that names no cell.
    """
    rows, columns = plan.rows(), plan.columns()
    found: set[int] = set()
    for line in filter(None, (line.strip() for line in text.splitlines())):
        row, slash, column = (part.strip() for part in line.partition("/"))
        here = {
            cell.row * len(columns) + cell.column
            for cell in plan.cells()
            for named in [(rows[cell.row], columns[cell.column])]
            if (fnmatchcase(named[0], row) and fnmatchcase(named[1], column))
            or (not slash and (fnmatchcase(named[0], line) or fnmatchcase(named[1], line)))
        }
        if not here:
            raise ComparisonError(
                f"{line!r} names no cell. Rows: {', '.join(rows)}. Columns: {', '.join(columns)}. "
                "Write 'row / column', or one of the two."
            )
        found |= here
    return found


def picture_of(images: torch.Tensor) -> Image.Image:
    """The picture of an IMAGE (1, H, W, 3) in [0, 1]. Raises ComparisonError for several."""
    if images.ndim != 4 or len(images) != 1:
        raise ComparisonError(
            f"The graph draws {len(images)} pictures for a cell, and one is needed: set its "
            "batch size to 1. For several pictures of a prompt, raise the Matrix' draws."
        )
    pixels = np.nan_to_num(images[0].float().cpu().numpy() * 255).clip(0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


class CellWriter:
    """Writes cells as PNG, each while the next is drawn."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="likeness-cells")
        self._last: Future[None] | None = None

    def write(self, path: Path, picture: Image.Image) -> None:
        """Begins to write, when the picture before is written; as `wait` for that one."""
        self.wait()
        self._last = self._pool.submit(_write_png, path, picture)

    def wait(self) -> None:
        """Until all is on disk. Raises ComparisonError for what could not be written."""
        last, self._last = self._last, None
        try:
            if last is not None:
                last.result()
        except OSError as error:
            raise ComparisonError(
                f"A finished cell cannot be written: {error}. Queue again when that is mended; "
                "the cells before are kept."
            ) from None


def _write_png(path: Path, picture: Image.Image) -> None:
    data = io.BytesIO()
    picture.save(data, "PNG", compress_level=4)
    write_whole(path, data.getvalue())


def write_study(
    output: Path,
    name: str,
    plan: Plan,
    pictures: Sequence[Path],
    suffix: str,
    text: Mapping[str, Any],
) -> tuple[Study, Image.Image]:
    """Lays the pictures out as ``<row>/768x1024/<key>.<suffix>``, with plan and sheet.

    Pictures that are not there yet are empty frames of the sheet.

    Args:
        pictures: a PNG file for each of the plan's cells.
        suffix: "png" or "jpg".
        text: text chunks of the sheet's PNG.
    """
    folder = study_folder(output, name)
    for cell, picture in zip(plan.cells(), pictures, strict=True):
        if picture.is_file():
            write_whole(folder / plan.file_of(cell, suffix), _encoded(picture, suffix))
    write_whole(folder / "plan.json", plan.to_json())
    sheet = draw_sheet(plan, pictures)
    digest = hashlib.sha256("".join([plan.to_json(), *(p.name for p in pictures)]).encode())
    path = folder / f"sheet-{digest.hexdigest()[:12]}.png"
    write_sheet(path, sheet, text)
    return Study(plan, folder, tuple(pictures), path), sheet


def _encoded(picture: Path, suffix: str) -> bytes:
    if suffix == "png":
        return picture.read_bytes()
    data = io.BytesIO()
    with Image.open(picture) as image:
        image.convert("RGB").save(data, "JPEG", quality=95, subsampling=0)
    return data.getvalue()


def draw_sheet(plan: Plan, pictures: Sequence[Path]) -> Image.Image:
    """The labelled sheet of a plan's pictures, in the order of its cells."""
    rows, columns = plan.rows(), plan.columns()
    across = len(columns)
    first_row = plan.cells()[:across]
    return contact_sheet(
        [Label(row) for row in rows],
        [Label(cell.key, cell.prompt) for cell in first_row],
        [pictures[start : start + across] for start in range(0, len(pictures), across)],
    )
