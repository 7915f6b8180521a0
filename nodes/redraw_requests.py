"""Cells that the viewer requested to be redrawn, once, at the next queue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

_requests: dict[str, set[str]] = {}  # stems of the cells' files, by comparison


def request_redraw(name: str, image: str) -> None:
    """Has the comparison `name` redraw the cell whose file is `image`.png, once."""
    _requests.setdefault(name, set()).add(image)


def has_redraw_request(name: str | None) -> bool:
    """Whether a cell of the comparison is to be redrawn; None: of any comparison."""
    return any(_requests.values()) if name is None else bool(_requests.get(normalize("NFC", name)))


def requested_cells(name: str, files: Sequence[Path]) -> set[int]:
    """Indices of the cells to redraw; drops requests for cells that no longer exist."""
    stems = _requests.get(name, set()) & {path.stem for path in files}
    _requests[name] = stems
    return {index for index, path in enumerate(files) if path.stem in stems}


def clear_redraw_request(name: str, file: Path) -> None:
    """Drops the request for a cell whose file has been written."""
    _requests.get(name, set()).discard(file.stem)
