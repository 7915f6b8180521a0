"""The contact sheet: images in labelled rows and columns on one page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageOps
from PIL.PngImagePlugin import PngInfo

from ..trainers.errors import SubjectError
from ..trainers.files import write_atomic
from ..trainers.image_io import open_image, png, to_srgb
from .errors import ComparisonError
from .text_rendering import Line, draw_lines, paragraph, total_height

ImageSource = Path | Image.Image | None

MAX_SIDE = 16_384
MAX_PIXELS = 64_000_000
_SMALLEST, _LARGEST = 48, 512  # the longer side of a cell
_COLUMNS = 25  # more are split into bands, one below the other

_PAPER, _INK, _GREY = (255, 255, 255), (28, 28, 30), (112, 112, 118)
_EMPTY, _FRAME = (246, 246, 247), (218, 218, 222)


@dataclass(frozen=True)
class Label:
    """The name of a row or column, and a detail in smaller type."""

    name: str
    detail: str = ""


@dataclass(frozen=True)
class Layout:
    """Dimensions of a sheet, in pixels.

    A band has `across` columns; `gutter` is the width of the row labels, `header` the height of
    the column labels and `note` that of the line below an image.
    """

    rows: int
    columns: int
    across: int
    cell: tuple[int, int]
    gutter: int
    header: int
    note: int

    @property
    def font_size(self) -> int:
        """Font size of names."""
        return _font_size(self.cell)

    @property
    def small_font_size(self) -> int:
        """Font size of details."""
        return max(round(0.75 * self.font_size), 9)

    @property
    def gap(self) -> int:
        """Space between cells."""
        return self.font_size // 2

    @property
    def margin(self) -> int:
        """Space around the page and between bands."""
        return 2 * self.font_size

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the page."""
        bottom = (
            self.corner(self.rows - 1, self.columns - 1)[1] + self.cell[1] + self.note + self.margin
        )
        right = self.corner(0, self.across - 1)[0] + self.cell[0] + self.margin
        return right, bottom

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """The top left pixel of a cell."""
        band, place = divmod(column, self.across)
        line = self.cell[1] + self.note + self.gap
        x = self.margin + self.gutter + place * (self.cell[0] + self.gap)
        y = self.margin + self.header + row * line
        return x, y + band * (self.header + self.rows * line + self.margin)


def contact_sheet(
    rows: Sequence[Label],
    columns: Sequence[Label],
    images: Sequence[Sequence[ImageSource]],
    *,
    notes: Sequence[Sequence[str]] | None = None,
) -> Image.Image:
    """All images on one page, RGB, at most 64 million pixels.

    Args:
        images: for each of `rows` one image per column: a file (opened lazily), a PIL image,
            or None. None and missing files become empty frames.
        notes: a line below each image, such as its score.

    Raises ComparisonError for a grid of another shape, too many images, or a damaged file.
    """
    _check_shape(rows, columns, images, "images")
    if notes is not None:
        _check_shape(rows, columns, notes, "notes")
    layout = plan_layout(len(rows), len(columns), _first_size(images), notes is not None)
    row_lines = [_label_lines(label, layout, layout.gutter - 2 * layout.gap) for label in rows]
    column_lines = [_label_lines(label, layout, layout.cell[0]) for label in columns]
    layout = _fit_gutters(layout, row_lines, column_lines)

    sheet = Image.new("RGB", layout.size, _PAPER)
    page = ImageDraw.Draw(sheet)
    _write_labels(page, layout, row_lines, column_lines)
    for r, line in enumerate(images):
        for c, image in enumerate(line):
            corner = layout.corner(r, c)
            _place(sheet, corner, layout.cell, image)
            if notes is not None:
                _write_note(page, layout, corner, notes[r][c])
    return sheet


def write_sheet(path: Path, sheet: Image.Image, text: Mapping[str, Any] | None = None) -> None:
    """Writes the sheet with `sheet_png`, atomically. Raises OSError."""
    write_atomic(path, sheet_png(sheet, text))


def sheet_png(sheet: Image.Image, text: Mapping[str, Any] | None = None) -> bytes:
    """The sheet as PNG with text chunks, such as ComfyUI's ``prompt`` and ``workflow``.

    Values other than strings are written as JSON.
    """
    chunks = PngInfo()
    for key, value in (text or {}).items():
        chunks.add_text(key, value if isinstance(value, str) else json.dumps(value))
    return png(sheet, compress_level=4, pnginfo=chunks)


def plan_layout(rows: int, columns: int, size: tuple[int, int], notes: bool) -> Layout:
    """The layout with the largest cells that fit on a page. Raises ComparisonError."""
    for side in range(min(max(*size, 256), _LARGEST), _SMALLEST - 1, -4):
        width, height = (max(round(side / max(size) * part), 1) for part in size)
        font_size = _font_size((width, height))
        for bands in range(ceil(columns / _COLUMNS), 0, -1):
            layout = Layout(
                rows,
                columns,
                across=ceil(columns / bands),
                cell=(width, height),
                gutter=9 * font_size,
                header=7 * font_size,
                note=round(1.3 * font_size) if notes else 0,
            )
            page = layout.size
            if max(page) <= MAX_SIDE and page[0] * page[1] <= MAX_PIXELS:
                return layout
    raise ComparisonError(
        f"{rows:,} x {columns:,} images are too many for one sheet: use fewer rows or columns."
    )


def _font_size(cell: tuple[int, int]) -> int:
    return min(max(max(cell) // 18, 11), 24)


def _fit_gutters(
    layout: Layout, row_lines: Sequence[Sequence[Line]], column_lines: Sequence[Sequence[Line]]
) -> Layout:
    """The layout with the space for labels reduced to what they need."""
    gutter = max((line.width for lines in row_lines for line in lines), default=0)
    header = max(total_height(lines) for lines in column_lines)
    return replace(
        layout,
        gutter=gutter + 2 * layout.gap if gutter else 0,
        header=header + layout.gap if header else 0,
    )


def _label_lines(label: Label, layout: Layout, width: int) -> list[Line]:
    """The lines of a label, at most `width` wide and, beyond its first line, as high as a cell."""
    name = paragraph(label.name, layout.font_size, _INK, width, 2)
    detail = paragraph(label.detail, layout.small_font_size, _GREY, width, 3)
    lines = name + detail
    while len(lines) > 1 and total_height(lines) > layout.cell[1]:
        lines.pop()
    return lines


def _check_shape(
    rows: Sequence[Label], columns: Sequence[Label], grid: Sequence[Sequence[Any]], what: str
) -> None:
    if not rows or not columns:
        raise ComparisonError("A sheet needs at least one row and one column.")
    if len(grid) != len(rows) or any(len(line) != len(columns) for line in grid):
        raise ComparisonError(
            f"The {what} do not match {len(rows)} rows of {len(columns)} columns: "
            "give one for each cell."
        )


def _first_size(images: Sequence[Sequence[ImageSource]]) -> tuple[int, int]:
    """Width and height of the first image that exists."""
    for line in images:
        for image in line:
            if (opened := _open_image(image)) is not None:
                return opened.size
    return 3, 4


def _open_image(image: ImageSource) -> Image.Image | None:
    """The image in mode RGB, or None for an empty frame."""
    if isinstance(image, Image.Image):
        return to_srgb(image)
    if image is None or not image.is_file():
        return None
    try:
        return to_srgb(open_image(image))
    except SubjectError as error:
        raise ComparisonError(f"{image} cannot be shown: {error}.") from None


def _place(
    sheet: Image.Image, corner: tuple[int, int], cell: tuple[int, int], image: ImageSource
) -> None:
    """Pastes the image into the centre of its cell, or an empty frame."""
    opened = _open_image(image)
    if opened is None:
        fitted = ImageOps.expand(Image.new("RGB", (cell[0] - 2, cell[1] - 2), _EMPTY), 1, _FRAME)
    else:
        fitted = ImageOps.contain(opened, cell, Image.Resampling.LANCZOS)
    across, down = (cell[i] - fitted.size[i] for i in (0, 1))
    sheet.paste(fitted, (corner[0] + across // 2, corner[1] + down // 2))


def _write_labels(
    page: ImageDraw.ImageDraw,
    layout: Layout,
    row_lines: Sequence[Sequence[Line]],
    column_lines: Sequence[Sequence[Line]],
) -> None:
    """Draws column labels directly above the images and row labels vertically centred."""
    for column, lines in enumerate(column_lines):
        x, y = layout.corner(0, column)
        draw_lines(page, (x, y - layout.gap - total_height(lines)), lines)
    for band in range(0, layout.columns, layout.across):
        for row, lines in enumerate(row_lines):
            y = layout.corner(row, band)[1] + (layout.cell[1] - total_height(lines)) // 2
            draw_lines(page, (layout.margin, y), lines)


def _write_note(
    page: ImageDraw.ImageDraw, layout: Layout, corner: tuple[int, int], note: str
) -> None:
    lines = paragraph(note, layout.small_font_size, _GREY, layout.cell[0], 1)
    draw_lines(page, (corner[0], corner[1] + layout.cell[1] + layout.small_font_size // 4), lines)
