"""The server routes of the panels in the browser.

Most are read-only; thumbnails of photographs and exported runs go to ComfyUI's temp folder. Routes
with effects refuse cross-origin requests.
"""

from __future__ import annotations

import json
from typing import Any

from ..trainers.errors import LikenessError
from ..trainers.subject import NoUsablePhotos
from .comparison_routes import REPORT_HEADERS, comparison, redraw_cell, report
from .host import input_folder, output_folder, temp_folder
from .left_out import leave_out, left_out_names, put_back
from .node_state import published_state
from .photo_view import PhotoViews
from .routing import add_html_route, add_json_route
from .run_routes import (
    clean_run,
    export_run,
    resume_run,
    run_class_images,
    run_events,
    run_files,
    stop_run,
)
from .subject import find_folder, subject_spec

Query = dict[str, str]

# Subject's widgets that affect the crops; the query holds their values as JSON.
SUBJECT = ("resolution", "crop", "face_share", "buckets", "captions", "mask", "enlarge")

_views = PhotoViews()


def register() -> None:
    """Adds the routes to ComfyUI's server."""
    output, temp, inputs = output_folder, temp_folder, input_folder
    add_json_route("GET", "/likeness/board", lambda params, _: (200, board(params)))
    add_json_route("GET", "/likeness/photos", lambda params, _: (200, photos(params)))
    leave, put = "/likeness/photos/leave-out", "/likeness/photos/put-back"
    add_json_route("POST", leave, lambda *params: leave_out(inputs(), *params))
    add_json_route("POST", put, lambda *params: put_back(inputs(), *params))
    add_json_route("GET", "/likeness/comparison", lambda params, _: comparison(output(), params))
    add_html_route("/likeness/report", lambda params: report(output(), params), REPORT_HEADERS)
    add_json_route("POST", "/likeness/draw-again", lambda *params: redraw_cell(output(), *params))
    run = "/likeness/runs/{run}"
    add_json_route("GET", run, lambda params, _: run_events(output(), params))
    add_json_route("GET", f"{run}/files", lambda params, _: run_files(output(), params))
    images = f"{run}/class-images"
    add_json_route("GET", images, lambda params, _: run_class_images(output(), params))
    add_json_route("POST", f"{run}/stop", lambda *params: stop_run(output(), *params))
    add_json_route("POST", f"{run}/go-on", lambda *params: resume_run(output(), *params))
    add_json_route("POST", f"{run}/export", lambda *params: export_run(output(), temp(), *params))
    add_json_route("POST", f"{run}/clean", lambda *params: clean_run(output(), *params))


def board(query: Query) -> dict[str, Any]:
    """The panel state of the nodes of ``workflow``."""
    return published_state(query.get("workflow", ""))


def photos(query: Query) -> dict[str, Any]:
    """The photographs of ``folder`` as they would be trained, or {"error": the reason why not}.

    With either, ``left_out``: the names of those that are left out. {"reading": True} while they
    are being read: the panel polls.
    """
    view = _read_photos(query)
    if "reading" in view:
        return view
    return {**view, "left_out": left_out_names(input_folder(), query.get("folder", ""))}


def _read_photos(query: Query) -> dict[str, Any]:
    try:
        spec = subject_spec({name: json.loads(query[name]) for name in SUBJECT if name in query})
        view = _views.view(find_folder(query.get("folder", "")), spec, temp_folder())
        return {"reading": True} if view is None else view
    except ValueError:
        return {"error": "The node's widget values cannot be read."}
    except NoUsablePhotos as error:
        refused = [{"name": one.name, "reason": one.reason} for one in error.refused]
        return {"error": str(error), "refused": refused}
    except LikenessError as error:
        return {"error": str(error)}
