"""Routes of the training panel: a run's events, files and class images, Stop and save, Resume,
Share, and deleting its training state.

A run is identified by its folder's name; no other folder is read. Only the files `stop` and `go-on`
in it and the exported zip in ComfyUI's temp folder are written, and only its checkpoints deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..comparison.export import export, find_export_source
from ..trainers.adapter_files import group_by_step
from ..trainers.class_image_sets import class_images_folder
from ..trainers.cleanup import reclaimable_size, remove_checkpoints
from ..trainers.errors import LikenessError
from ..trainers.events import EventReader
from .photo_view import TEMP_SUBFOLDER
from .runs import find_run_by_id, resume_requests

JsonResponse = tuple[int, dict[str, Any]]  # status and JSON

_RUN_NOT_FOUND: JsonResponse = (404, {"error": "This run does not exist."})
_NO_IMAGES: dict[str, Any] = {"files": [], "subfolder": "", "prompts": []}
PROXY_HINT = (
    "A reverse proxy in front of it must pass on the browser's Host header; for nginx: "
    "proxy_set_header Host $http_host;"
)


def run_events(output: Path, params: Mapping[str, str]) -> JsonResponse:
    """The events of ``run`` from byte ``start``, in blocks of one megabyte.

    ``next`` is the start of the next block, equal to ``start`` if there is nothing new yet;
    ``working`` says whether a process is training the run.
    """
    run = find_run_by_id(output, params.get("run", ""))
    if run is None:
        return _RUN_NOT_FOUND
    start = params.get("start", "0")
    if not (start.isascii() and start.isdigit() and len(start) <= 15):
        return 400, {"error": "start must be a number of bytes."}
    reader = EventReader(run.events, start=int(start))
    events = [event.to_data() for event in reader.read_block()]
    return 200, {"events": events, "next": reader.offset, "working": run.is_busy()}


def run_files(output: Path, params: Mapping[str, str]) -> JsonResponse:
    """The adapter ``files`` of ``run`` for ComfyUI's route /view: ``filename``, ``subfolder``,
    ``size`` in bytes, the ``step`` after which each was saved, and whether it is the ``result``.

    Files that are no longer in ComfyUI's output folder are left out. ``state`` is the size of the
    training state that can be deleted.
    """
    run = find_run_by_id(output, params.get("run", ""))
    if run is None:
        return _RUN_NOT_FOUND
    result, found = run.result(), []
    for kind in ("loras", "checkpoints"):
        names = [path.name for path in (output / kind).glob(f"{run.path.name}-step*")]
        steps = {name: step for step, name in group_by_step(names).get(run.path.name, {}).items()}
        if result is not None and result.adapter.parent.name == kind:
            steps[result.adapter.name] = result.steps
        for name, step in sorted(steps.items(), key=lambda item: item[1]):
            is_result = result is not None and name == result.adapter.name
            with suppress(OSError):
                size = (output / kind / name).stat().st_size
                file = {"filename": name, "subfolder": kind, "size": size}
                found.append({**file, "step": step, "result": is_result})
    return 200, {"files": found, "state": reclaimable_size(run)}


def run_class_images(output: Path, params: Mapping[str, str]) -> JsonResponse:
    """The class images that the base has generated for ``run`` so far, for ComfyUI's route /view.

    ``files`` are their names, in order, in ``subfolder`` of the output folder; image i shows prompt
    i modulo the number of ``prompts``.
    None of a run without class images or with the user's own, or if the cache is elsewhere.
    """
    run = find_run_by_id(output, params.get("run", ""))
    if run is None:
        return _RUN_NOT_FOUND
    try:
        recipe = run.recipe()
        prior = recipe.prior
        if prior is None or prior.source == "teacher" or prior.images is not None:
            return 200, _NO_IMAGES
        folder = class_images_folder(recipe, run.places(), prior).resolve()
        subfolder = folder.relative_to(output.resolve()).as_posix()
        names = [path.name for path in folder.glob("*.png") if path.stem.isdecimal()]
    except (LikenessError, OSError, ValueError):  # of another version, or outside the output
        return 200, _NO_IMAGES
    prompts = list(recipe.class_prompts())
    return 200, {"files": sorted(names), "subfolder": subfolder, "prompts": prompts}


def stop_run(output: Path, params: Mapping[str, str], headers: Mapping[str, str]) -> JsonResponse:
    """Asks ``run`` to save its adapter and end. Same-origin requests only."""
    if not same_origin(headers):
        return 403, {"error": f"Only ComfyUI's own page may stop a run. {PROXY_HINT}"}
    run = find_run_by_id(output, params.get("run", ""))
    if run is None:
        return _RUN_NOT_FOUND
    if not run.is_busy():
        return 409, {"error": "The run is not training."}
    run.stop.touch()
    return 200, {}


def resume_run(output: Path, params: Mapping[str, str], headers: Mapping[str, str]) -> JsonResponse:
    """Has a stopped ``run`` train its remaining steps when its node is next queued.

    Same-origin requests only.
    """
    if not same_origin(headers):
        return 403, {"error": f"Only ComfyUI's own page may resume a run. {PROXY_HINT}"}
    run = find_run_by_id(output, params.get("run", ""))
    if run is None:
        return _RUN_NOT_FOUND
    result = run.result()
    if run.is_busy() or result is None or not result.stopped:
        return 409, {"error": "The run is still training, or has no steps left to train."}
    run.resume_flag.touch()
    resume_requests.append(run.path.name)
    return 200, {}


def export_run(
    output: Path, temp: Path, params: Mapping[str, str], headers: Mapping[str, str]
) -> JsonResponse:
    """Exports a finished ``run`` as a zip, without photographs; ``file`` is its name in
    ``likeness`` below ComfyUI's temp folder.

    ``prompts=0`` leaves out all text that the user wrote. Same-origin requests only.
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


def clean_run(output: Path, params: Mapping[str, str], headers: Mapping[str, str]) -> JsonResponse:
    """Deletes the training state of a finished ``run``. Same-origin requests only."""
    if not same_origin(headers):
        return 403, {"error": f"Only ComfyUI's own page may delete a run's state. {PROXY_HINT}"}
    run = find_run_by_id(output, params.get("run", ""))
    if run is None:
        return _RUN_NOT_FOUND
    try:
        if remove_checkpoints(run):
            return 200, {}
    except OSError as error:
        return 409, {"error": f"{run.checkpoints} cannot be deleted: {error.strerror}."}
    return 409, {"error": "The run is being trained or continued, or has not finished."}


def same_origin(headers: Mapping[str, str]) -> bool:
    """Whether the request comes from a page of this server.

    Decided by Fetch Metadata (w3.org/TR/fetch-metadata), which scripts cannot set, or if it is
    missing (plain HTTP from another machine) by the Origin header. Requests without either are
    refused: browsers always send one with a POST.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin, host = headers.get("Origin", ""), headers.get("Host", "")
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
