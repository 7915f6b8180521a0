"""Forwards a run's events to the browser: progress bar, preview image and panel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..trainers.events import Event
from ..trainers.run_folder import RunFolder
from . import host
from .node_state import publish
from .throttle import Throttle

EVENT = "likeness.step"


def on_read(progress: host.Progress) -> Callable[[Path], None]:
    """A callback that shows on the node which file is read.

    It raises ComfyUI's interrupt exception if the user cancels.
    """
    throttle = Throttle(lambda values: progress.set_status(values["line"]))

    def show(file: Path) -> None:
        host.interrupted()
        throttle.add({"line": f"Reading {file.name}"})

    return show


class RunReporter:
    """Shows a run on its node; the panel reads the run's folder when notified.

    Args:
        hidden: the node's hidden inputs.
        progress: the node's progress bar.
    """

    def __init__(self, hidden: Any, progress: host.Progress) -> None:
        self._hidden = hidden
        self._progress = progress
        self._throttle = Throttle(self._send_update)
        self._folder = Path()
        self._done = (0, 1)

    def begin(self, folder: RunFolder) -> None:
        """Shows a starting run, and unloads ComfyUI's models to make room for it."""
        self._folder = folder.path
        self.publish(folder.path)
        host.unload_models()

    def publish(self, folder: Path) -> None:
        """Shows a run on the node's panel."""
        publish(self._hidden, "run", folder.name)

    def remark(self, folder: Path, text: str) -> None:
        """Shows a remark on a run above the notices of the node's panel; "" removes it."""
        publish(self._hidden, "remark", {"run": folder.name, "text": text})

    def show(self, event: Event) -> None:
        """Shows one event."""
        data = event.data
        if event.kind == "step":
            self._done = (data["step"], data["total"])
            line = f"step {data['step']} of {data['total']}, loss {data['loss']:.4f}"
            self._throttle.add({"step": data["step"], "total": data["total"], "line": line})
        elif event.kind == "stage":
            self._show_stage(**data)
        elif event.kind == "preview":
            self._progress.show(*self._done, image=self._folder / data["path"])
        elif event.kind == "notice":
            self._throttle.add({"line": data["text"]})

    def _show_stage(self, name: str, done: int, total: int) -> None:
        self._throttle.add({"line": f"{name} {done} of {total}" if total else f"{name} …"})
        if total:
            self._progress.show(done, total)

    def end(self) -> None:
        """Notifies the panel that the run has ended, whether or not it succeeded."""
        self._throttle.flush()
        host.send_event(EVENT, {"run": self._folder.name, "ended": True})

    def _send_update(self, news: dict[str, Any]) -> None:
        if "step" in news:
            self._progress.show(*self._done)
        self._progress.set_status(news["line"])
        here = {"run": self._folder.name, "prompt": host.executing_prompt(), "ended": False}
        host.send_event(EVENT, here | news)
