"""What the panels in the browser ask of the server.

Most only read; small copies of photographs, and what is shared, go to ComfyUI's temp folder. What
changes something is refused to pages of another origin.
"""

from __future__ import annotations

import json
from typing import Any

from ..trainers.errors import LikenessError
from ..trainers.subject import NoneUsable
from .answers import add_answer, add_page
from .board import pinned
from .comparison_routes import REPORT_HEADERS, comparison, draw_again, report
from .host import output_folder, temp_folder
from .photo_view import PhotoViews
from .run_routes import export_run, run_events, stop_run, train_on
from .subject import find_folder, subject_spec

Query = dict[str, str]

# The widgets of a subject that decide how photographs are cropped; their values come as JSON.
SUBJECT = ("resolution", "crop", "face_share", "buckets", "captions", "mask", "enlarge")

_views = PhotoViews()


def register() -> None:
    """Adds the routes to ComfyUI's server."""
    output, temp = output_folder, temp_folder
    add_answer("GET", "/likeness/board", lambda asked, _: (200, board(asked)))
    add_answer("GET", "/likeness/photos", lambda asked, _: (200, photos(asked)))
    add_answer("GET", "/likeness/comparison", lambda asked, _: comparison(output(), asked))
    add_page("/likeness/report", lambda asked: report(output(), asked), REPORT_HEADERS)
    add_answer("POST", "/likeness/draw-again", lambda *asked: draw_again(output(), *asked))
    run = "/likeness/runs/{run}"
    add_answer("GET", run, lambda asked, _: run_events(output(), asked))
    add_answer("POST", f"{run}/stop", lambda *asked: stop_run(output(), *asked))
    add_answer("POST", f"{run}/go-on", lambda *asked: train_on(output(), *asked))
    add_answer("POST", f"{run}/export", lambda *asked: export_run(output(), temp(), *asked))


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
    except NoneUsable as error:
        refused = [{"name": one.name, "reason": one.reason} for one in error.refused]
        return {"error": str(error), "refused": refused}
    except LikenessError as error:
        return {"error": str(error)}
