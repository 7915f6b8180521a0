"""What the panels in the browser ask of the server.

All but "stop and save" and "train on" only reads; small copies of photographs go to ComfyUI's
temp folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..comparison.study import SCORES_FILE
from ..trainers.errors import LikenessError
from .board import pinned
from .host import add_answer, add_get, output_folder, temp_folder
from .names import inside
from .photo_view import PhotoViews
from .run_routes import run_events, stop_run, train_on
from .study import study_folder
from .subject import find_folder, subject_spec
from .viewer import VIEW

Query = dict[str, str]

# The widgets of a subject that decide how photographs are cropped; their values come as JSON.
SUBJECT = ("resolution", "crop", "face_share", "buckets", "captions", "mask", "enlarge")

_views = PhotoViews()


def register() -> None:
    """Adds the routes to ComfyUI's server."""
    add_get("/likeness/board", board)
    add_get("/likeness/photos", photos)
    add_get("/likeness/comparison", comparison)
    output = output_folder
    add_answer("GET", "/likeness/runs/{run}", lambda asked, _: run_events(output(), asked))
    add_answer("POST", "/likeness/runs/{run}/stop", lambda *asked: stop_run(output(), *asked))
    add_answer("POST", "/likeness/runs/{run}/go-on", lambda *asked: train_on(output(), *asked))


def board(query: Query) -> dict[str, Any]:
    """What the nodes of ``workflow`` show."""
    return pinned(query.get("workflow", ""))


def photos(query: Query) -> dict[str, Any]:
    """The photographs of ``folder`` as they would be trained, or {"error": why they cannot be}.

    {"reading": True} while they are read: ask again.
    """
    try:
        spec = subject_spec({name: json.loads(query[name]) for name in SUBJECT if name in query})
        view = _views.view(find_folder(query.get("folder", "")), spec, temp_folder())
        return {"reading": True} if view is None else view
    except ValueError:
        return {"error": "The values of the node cannot be read."}
    except LikenessError as error:
        return {"error": str(error)}


def comparison(query: Query) -> dict[str, Any]:
    """What the viewer shows of ``name``: `viewer.json` and `scores.json`, null where there is none.

    Both are passed on as they are; the viewer checks them. Until a comparison is whole, the scores
    are those of the former one of its name, and left out.
    """
    root = study_folder(output_folder(), "")
    try:
        folder = inside(root, query.get("name", ""))
    except LikenessError as error:
        return {"error": str(error)}
    view = _json_of(folder / VIEW)
    whole = isinstance(view, dict) and view.get("sheet") is not None
    return {"view": view, "scores": _json_of(folder / SCORES_FILE) if whole else None}


def _json_of(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
