"""What a training panel asks of a run: its events, to stop and save, to train on, and to share it.

A run is named by its folder's name; no other folder is read, and nothing is written but the files
`stop` and `go-on` in it, and what is shared in ComfyUI's temp folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..comparison.export import export, find_shared
from ..trainers.errors import LikenessError
from ..trainers.events import EventReader
from .photo_view import FOLDER
from .runs import asked_to_go_on, run_of_id

Answer = tuple[int, dict[str, Any]]  # status and JSON

_NO_RUN: Answer = (404, {"error": "There is no such run."})
PROXY = (
    "A reverse proxy in front of it must pass on the Host of the browser; for nginx: "
    "proxy_set_header Host $http_host;"
)


def run_events(output: Path, asked: Mapping[str, str]) -> Answer:
    """The events of ``run`` from byte ``start`` on, in blocks of a megabyte.

    ``next`` is the start of the next block, the same again when there are no more as yet;
    ``working`` says whether a process trains the run now.
    """
    run = run_of_id(output, asked.get("run", ""))
    if run is None:
        return _NO_RUN
    start = asked.get("start", "0")
    if not (start.isascii() and start.isdigit() and len(start) <= 15):
        return 400, {"error": "start is a number of bytes."}
    reader = EventReader(run.events, start=int(start))
    events = [event.to_data() for event in reader.block()]
    return 200, {"events": events, "next": reader.offset, "working": run.is_busy()}


def stop_run(output: Path, asked: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
    """Asks ``run`` to save what it has learned and end. Only for pages of this very server."""
    if not same_origin(headers):
        return 403, {"error": f"Only ComfyUI's own page may stop a run. {PROXY}"}
    run = run_of_id(output, asked.get("run", ""))
    if run is None:
        return _NO_RUN
    if not run.is_busy():
        return 409, {"error": "The run is not being trained."}
    run.stop.touch()
    return 200, {}


def train_on(output: Path, asked: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
    """Asks for the steps left of a stopped ``run``, to be trained when its node is queued again.

    Only for pages of this very server.
    """
    if not same_origin(headers):
        return 403, {"error": f"Only ComfyUI's own page may ask a run to go on. {PROXY}"}
    run = run_of_id(output, asked.get("run", ""))
    if run is None:
        return _NO_RUN
    result = run.result()
    if run.is_busy() or result is None or not result.stopped:
        return 409, {"error": "The run is at work, or nothing is left of it to train."}
    run.go_on.touch()
    asked_to_go_on.append(run.path.name)
    return 200, {}


def export_run(
    output: Path, temp: Path, asked: Mapping[str, str], headers: Mapping[str, str]
) -> Answer:
    """Makes the zip of a finished ``run``, without photographs; ``file`` is its name in
    ``likeness`` below ComfyUI's temp folder.

    ``prompts=0`` leaves out all words that the user wrote. Only for pages of this very server.
    """
    if not same_origin(headers):
        return 403, {"error": f"Only ComfyUI's own page may share a run. {PROXY}"}
    run = run_of_id(output, asked.get("run", ""))
    if run is None:
        return _NO_RUN
    try:
        shared = find_shared(run.path)
        target = temp / FOLDER / f"{shared.adapter.stem}.zip"
        target.unlink(missing_ok=True)
        names = export(target, shared, prompts=asked.get("prompts") != "0")
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
