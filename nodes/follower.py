"""A run's events on their way to the browser: the node's bar and picture, and its panel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..trainers.events import Event
from ..trainers.runs import RunFolder
from . import host
from .board import pin
from .news import News

EVENT = "likeness.step"


def reading(progress: host.Progress) -> Callable[[Path], None]:
    """A function that shows on the node which file is read, and raises ComfyUI's interruption when
    the user cancels.
    """
    news = News(lambda values: progress.say(values["line"]))

    def show(file: Path) -> None:
        host.interrupted()
        news.add({"line": f"Reading {file.name}"})

    return show


class Follower:
    """Shows a run on its node; its panel reads the run's folder and is told when to.

    Args:
        hidden: the node's hidden inputs.
        progress: the node's bar.
    """

    def __init__(self, hidden: Any, progress: host.Progress) -> None:
        self._hidden = hidden
        self._progress = progress
        self._news = News(self._tell)
        self._folder = Path()
        self._done = (0, 1)

    def begin(self, folder: RunFolder) -> None:
        """Shows a run that starts, and makes room for it."""
        self._folder = folder.path
        self.pin(folder.path)
        host.free_models()

    def pin(self, folder: Path) -> None:
        """Shows a run on the node's panel."""
        pin(self._hidden, "run", folder.name)

    def remark(self, folder: Path, text: str) -> None:
        """Says something of a run at the foot of the node's panel; "" takes it away."""
        pin(self._hidden, "remark", {"run": folder.name, "text": text})

    def show(self, event: Event) -> None:
        """One event."""
        data = event.data
        if event.kind == "step":
            self._done = (data["step"], data["total"])
            line = f"step {data['step']} of {data['total']}, loss {data['loss']:.4f}"
            self._news.add({"step": data["step"], "total": data["total"], "line": line})
        elif event.kind == "stage":
            self._show_stage(**data)
        elif event.kind == "preview":
            self._progress.show(*self._done, picture=self._folder / data["path"])
        elif event.kind == "notice":
            self._news.add({"line": data["text"]})

    def _show_stage(self, name: str, done: int, total: int) -> None:
        self._news.add({"line": f"{name} {done} of {total}" if total else f"{name} …"})
        if total:
            self._progress.show(done, total)

    def end(self) -> None:
        """The run has ended, in whatever way."""
        self._news.flush()
        host.tell_browser(EVENT, {"run": self._folder.name, "ended": True})

    def _tell(self, news: dict[str, Any]) -> None:
        if "step" in news:
            self._progress.show(*self._done)
        self._progress.say(news["line"])
        here = {"run": self._folder.name, "prompt": host.executing_prompt(), "ended": False}
        host.tell_browser(EVENT, here | news)
