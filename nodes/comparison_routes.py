"""Routes of the comparison viewer: a comparison's files, its report, and redrawing a cell.

A comparison is identified by its folder's name; no other folder is read. Redraw requests are kept
in memory; nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..comparison.study import REPORT_FILE, SCORES_FILE, study_folder
from ..trainers.errors import LikenessError
from .paths import safe_join
from .redraw_requests import request_redraw
from .run_routes import PROXY_HINT, JsonResponse, same_origin
from .viewer import VIEW_FILE

# The report is self-contained. Sandboxed, it has an opaque origin: even a tampered report can reach
# neither ComfyUI nor any other server.
REPORT_HEADERS = {
    "Content-Security-Policy": (
        "sandbox allow-scripts allow-downloads; default-src 'none'; img-src data:; "
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def comparison(output: Path, params: Mapping[str, str]) -> JsonResponse:
    """What the viewer shows of ``name``: `viewer.json` and `scores.json`, null if missing.

    Both are passed on unchecked; the viewer checks them. ``report`` says whether there is one.
    Scores and report are left out until the comparison is complete: until then they are those of an
    earlier one of the same name.
    """
    try:
        folder = _folder(output, params)
    except LikenessError as error:
        return 200, {"error": str(error)}
    view = _json_of(folder / VIEW_FILE)
    complete = isinstance(view, dict) and view.get("sheet") is not None
    scores = _json_of(folder / SCORES_FILE) if complete else None
    has_report = complete and (folder / REPORT_FILE).is_file()
    return 200, {"view": view, "scores": scores, "report": has_report}


def report(output: Path, params: Mapping[str, str]) -> tuple[int, bytes]:
    """The report of ``name``, to be sent with REPORT_HEADERS."""
    try:
        path = safe_join(_folder(output, params), REPORT_FILE)
        return 200, path.read_bytes()
    except (LikenessError, OSError):
        return 404, b"This comparison has no report: a Score node writes one."


def redraw_cell(
    output: Path, params: Mapping[str, str], headers: Mapping[str, str]
) -> JsonResponse:
    """Requests that the cell ``image`` of ``name`` be redrawn when its node is next queued.

    Same-origin requests only.
    """
    if not same_origin(headers):
        return 403, {"error": f"Only ComfyUI's own page may redraw a cell. {PROXY_HINT}"}
    try:
        folder = _folder(output, params)
    except LikenessError as error:
        return 404, {"error": str(error)}
    view, image = _json_of(folder / VIEW_FILE), params.get("image", "")
    images = view.get("images") if isinstance(view, dict) else None
    if not isinstance(images, list) or image not in images:
        return 404, {"error": "The comparison no longer has this cell."}
    request_redraw(folder.name, image)
    return 200, {}


def _folder(output: Path, params: Mapping[str, str]) -> Path:
    """The folder of ``name``. Raises LikenessError."""
    return safe_join(study_folder(output, ""), params.get("name", ""))


def _json_of(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
