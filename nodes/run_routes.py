"""What a training panel asks of a run: its events, to stop and save, to train on, and to share it.

A run is named by its folder's name; no other folder is read, and nothing is written but the files
`stop` and `go-on` in it, and what is shared in ComfyUI's temp folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..comparison.export import export, find_export_source
from ..trainers.errors import LikenessError
from ..trainers.events import EventReader
from .photo_view import TEMP_SUBFOLDER
from .runs import find_run_by_id, resume_requests

JsonResponse = tuple[int, dict[str, Any]]  # status and JSON

_RUN_NOT_FOUND: JsonResponse = (404, {"error": "There is no such run."})
PROXY_HINT = (
    "A reverse proxy in front of it must pass on the Host of the browser; for nginx: "
    "proxy_set_header Host $http_host;"
)


def run_events(output: Path, params: Mapping[str, str]) -> JsonResponse:
    """The events of ``run`` from byte ``start`` on, in blocks of a megabyte.

    ``next`` is the start of the next block, the same again when there are no more as yet;
    ``working`` says whether a process trains the run now.
    """
    run = find_run_by_id(output, params.get("run", ""))
    if run is None:
        return _RUN_NOT_FOUND
    start = params.get("start", "0")
    if not (start.isascii() and start.isdigit() and len(start) <= 15):
        return 400, {"error": "start is a number of bytes."}
    reader = EventReader(run.events, start=int(start))
    events = [event.to_data() for event in reader.read_block()]
    return 200, {"events": events, "next": reader.offset, "working": run.is_busy()}


def stop_run(output: Path, params: Mapping[str, str], headers: Mapping[str, str]) -> JsonResponse:
    """Asks ``run`` to save what it has learned and end. Only for pages of this very server."""
    if not same_origin(headers):
        return 403, {"error": f"Only ComfyUI's own page may stop a run. {PROXY_HINT}"}
    run = find_run_by_id(output, params.get("run", ""))
    if run is None:
        return _RUN_NOT_FOUND
    if not run.is_busy():
        return 409, {"error": "The run is not being trained."}
    run.stop.touch()
    return 200, {}


def resume_run(output: Path, params: Mapping[str, str], headers: Mapping[str, str]) -> JsonResponse:
    """Asks for the steps left of a stopped ``run``, to be trained when its node is queued again.

    Only for pages of this very server.
    """
    if not same_origin(headers):
        return 403, {"error": f"Only ComfyUI's own page may ask a run to go on. {PROXY_HINT}"}
    run = find_run_by_id(output, params.get("run", ""))
    if run is None:
        return _RUN_NOT_FOUND
    result = run.result()
    if run.is_busy() or result is None or not result.stopped:
        return 409, {"error": "The run is at work, or nothing is left of it to train."}
    run.resume_flag.touch()
    resume_requests.append(run.path.name)
    return 200, {}


def export_run(
    output: Path, temp: Path, params: Mapping[str, str], headers: Mapping[str, str]
) -> JsonResponse:
    """Makes the zip of a finished ``run``, without photographs; ``file`` is its name in
    ``likeness`` below ComfyUI's temp folder.

    ``prompts=0`` leaves out all words that the user wrote. Only for pages of this very server.
    """
    if not same_origin(headers):
        return 403, {"error": f"Only ComfyUI's own page may share a run. {PROXY_HINT}"}
    run = find_run_by_id(output, params.get("run", ""))
    if run is None:
        return _RUN_NOT_FOUND
    try:
        source = find_export_source(run.path)
        target = temp / TEMP_SUBFOLDER / f"{source.adapter.stem}.zip"
        target.unlink(missing_ok=True)
        names = export(target, source, prompts=params.get("prompts") != "0")
    except (LikenessError, OSError) as error:
        return 409, {"error": str(error)}
    return 200, {"file": target.name, "contents": names}


def same_origin(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that the page that asks comes from this server.

    By Fetch Metadata (w3.org/TR/fetch-metadata), which a script cannot set, or where a browser
    sends none (plain HTTP from another machine) by the origin. Programs that send neither are
    refused: a browser always does with a POST.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin, host = headers.get("Origin", ""), headers.get("Host", "")
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
