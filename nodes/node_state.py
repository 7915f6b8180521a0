"""What each node's panel shows: sent to open tabs at once, and kept for those that open later.

Also kept on disk, so that panels are not empty after a restart of ComfyUI.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from ..trainers.files import write_atomic
from ..trainers.places import cache_folder
from . import host

EVENT = "likeness.board"
MAX_NODES = 1000
FILE = "board.json"

PublishedState = OrderedDict[tuple[str, str], dict[str, Any]]  # by workflow and node

_published: PublishedState = OrderedDict()
_loaded_from: tuple[Path, Any] | None = None  # the file that `_published` holds, and its signature
_lock = Lock()


def publish(hidden: Any, kind: str, value: Any) -> None:
    """Shows `value`, which is JSON, on a node; replaces an earlier value of its kind.

    Args:
        hidden: the node's hidden inputs, with `unique_id` and `extra_pnginfo`.
        kind: "run", "remark" (of a run), "comparison", "scores" or "poses".
    """
    node, workflow = str(hidden.unique_id), workflow_id(hidden)
    with _lock:
        _load()
        _published.setdefault((workflow, node), {})[kind] = value
        _published.move_to_end((workflow, node))
        while len(_published) > MAX_NODES:
            _published.popitem(last=False)
        _save()
    host.send_event(EVENT, {"workflow": workflow, "node": node, "kind": kind, "value": value})


def published_state(workflow: str) -> dict[str, dict[str, Any]]:
    """What the nodes of a workflow show: {node id: {kind: value}}."""
    with _lock:
        _load()
        return {node: dict(kinds) for (name, node), kinds in _published.items() if name == workflow}


def _load() -> None:
    """Reads state kept by an earlier ComfyUI, or by another that shares the output folder."""
    global _loaded_from
    file, before = _file(), _loaded_from
    _loaded_from = (file, _file_signature(file))
    if before == _loaded_from:
        return
    if before and before[0] != file:
        _published.clear()
    with suppress(OSError, ValueError, TypeError, RecursionError):  # none yet, or damaged
        for workflow, node, kinds in json.loads(file.read_text(encoding="utf-8"))[-MAX_NODES:]:
            _published[str(workflow), str(node)] = dict(kinds)


def _file_signature(file: Path) -> Any:
    """Changes when the file is written; None without one."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _save() -> None:
    global _loaded_from
    # Nodes queued by a program have no workflow id: their state is not kept on disk.
    kept = [[*key, kinds] for key, kinds in _published.items() if key[0]]
    if not host.output_folder().is_dir():
        return
    with suppress(OSError):  # only costs an empty panel after a restart
        write_atomic(_file(), json.dumps(kept), durable=False)
        _loaded_from = (_file(), _file_signature(_file()))


def _file() -> Path:
    return cache_folder(host.output_folder()) / FILE


def workflow_id(hidden: Any) -> str:
    """The workflow's id from the browser; "" if it was not queued there."""
    workflow = (getattr(hidden, "extra_pnginfo", None) or {}).get("workflow")
    found = workflow.get("id") if isinstance(workflow, dict) else None
    return found if isinstance(found, str) else ""
