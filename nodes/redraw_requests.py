"""Cells that the viewer asked to have drawn again: once, at the next queue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

_requests: dict[str, set[str]] = {}  # names of the cells' files without .png, by comparison


def request_redraw(name: str, picture: str) -> None:
    """Has the comparison `name` draw the cell whose file is `picture`.png once more."""
    _requests.setdefault(name, set()).add(picture)


def has_redraw_request(name: str | None) -> bool:
    """Whether a cell of a comparison is to be drawn again; None: of any."""
    return any(_requests.values()) if name is None else bool(_requests.get(normalize("NFC", name)))


def requested_cells(name: str, files: Sequence[Path]) -> set[int]:
    """Indices of the cells to draw again. Those that the comparison no longer has are forgotten."""
    there = _requests.get(name, set()) & {path.stem for path in files}
    _requests[name] = there
    return {index for index, path in enumerate(files) if path.stem in there}


def clear_redraw_request(name: str, file: Path) -> None:
    """A cell's file is written: nothing is asked of it any more."""
    _requests.get(name, set()).discard(file.stem)
