"""The cells of a Contact Sheet: selecting them, converting their images, writing their files."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from unicodedata import normalize

import numpy as np
import torch
from PIL import Image

from ..comparison.errors import ComparisonError
from ..comparison.matrix import Plan
from ..comparison.study import (
    Study,
    cells_folder,
    encode_cell_png,
    study_folder,
    write_partial_study,
    write_study,
)
from ..trainers.files import write_atomic
from .viewer import write_thumbnail

__all__ = ["Study", "cells_folder", "study_folder", "write_partial_study", "write_study"]


def select_cells(plan: Plan, text: str) -> set[int]:
    """Indices of the cells that `text` names; each line is ``row / column``, a row or a column.

    ``*`` matches any text. Raises ComparisonError for a line that matches no cell.
    """
    rows, columns = plan.rows(), plan.columns()
    found: set[int] = set()
    lines = (normalize("NFC", line.strip()) for line in text.splitlines())
    for line in filter(None, lines):
        row, slash, column = (part.strip() for part in line.partition("/"))
        matches = {
            cell.row * len(columns) + cell.column
            for cell in plan.cells()
            for named in [(rows[cell.row], columns[cell.column])]
            if (fnmatchcase(named[0], row) and fnmatchcase(named[1], column))
            or (not slash and (fnmatchcase(named[0], line) or fnmatchcase(named[1], line)))
        }
        if not matches:
            raise ComparisonError(
                f"{line!r} matches no cell. Rows: {', '.join(rows)}. Columns: {', '.join(columns)}."
                " Enter 'row / column', a row or a column."
            )
        found |= matches
    return found


def tensor_to_image(images: torch.Tensor) -> Image.Image:
    """Converts an IMAGE (1, H, W, 3 or 4) in [0, 1].

    Raises ComparisonError for a batch other than 1, or channels other than RGB or RGBA.
    """
    if images.ndim != 4 or len(images) != 1:
        raise ComparisonError(
            f"The workflow generates {len(images)} images for a cell instead of one: set its batch "
            "size to 1. For several images of a prompt, raise the Matrix's draws."
        )
    if images.shape[-1] not in (3, 4):
        raise ComparisonError(
            f"A cell's image has {images.shape[-1]} channels: wire RGB images to Contact Sheet."
        )
    pixels = np.nan_to_num(images[0].float().cpu().numpy() * 255).clip(0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


class CellWriter:
    """Writes cells as PNG in the background, each while the next is drawn."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="likeness-cells")
        self._pending: Future[None] | None = None

    def write(
        self, path: Path, image: Image.Image, on_done: Callable[[], None] = lambda: None
    ) -> None:
        """Starts writing once the previous image is written; raises as `wait` for that one.

        `on_done` is called in the writing thread when the image and its thumbnail are written.
        """
        self.wait()
        self._pending = self._pool.submit(_write_cell, path, image, on_done)

    def wait(self) -> None:
        """Blocks until everything is on disk. Raises ComparisonError if a write failed."""
        last, self._pending = self._pending, None
        try:
            if last is not None:
                last.result()
        except OSError as error:
            raise ComparisonError(
                f"A finished cell cannot be written: {error}. Fix this and queue again; the cells "
                "written before it are kept."
            ) from None


def _write_cell(path: Path, image: Image.Image, on_done: Callable[[], None]) -> None:
    write_thumbnail(path, image)
    write_atomic(path, encode_cell_png(image))
    on_done()
