"""What each node has to show: told to open tabs at once, and kept for those that open later."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

from . import host

EVENT = "likeness.board"
MOST_NODES = 1000

_pinned: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()
_lock = Lock()


def pin(hidden: Any, kind: str, value: Any) -> None:
    """Shows `value`, which is JSON, on a node; the last one of a kind counts.

    Args:
        hidden: the node's hidden inputs, with `unique_id` and `extra_pnginfo`.
        kind: "run", "comparison" or "poses".
    """
    node, workflow = str(hidden.unique_id), workflow_of(hidden)
    with _lock:
        _pinned.setdefault((workflow, node), {})[kind] = value
        _pinned.move_to_end((workflow, node))
        while len(_pinned) > MOST_NODES:
            _pinned.popitem(last=False)
    host.tell_browser(EVENT, {"workflow": workflow, "node": node, "kind": kind, "value": value})


def pinned(workflow: str) -> dict[str, dict[str, Any]]:
    """What the nodes of a workflow show: {node id: {kind: value}}."""
    with _lock:
        return {node: dict(kinds) for (name, node), kinds in _pinned.items() if name == workflow}


def workflow_of(hidden: Any) -> str:
    """The id that the browser gave the workflow; "" if it was not queued in a browser."""
    workflow = (getattr(hidden, "extra_pnginfo", None) or {}).get("workflow")
    found = workflow.get("id") if isinstance(workflow, dict) else None
    return found if isinstance(found, str) else ""
