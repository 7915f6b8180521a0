"""What a run says while it works: one JSON object a line in `events.jsonl`.

Kinds and their data:

| kind | data |
|---|---|
| stage | name, done, total |
| step | step, total, loss, instance_loss, prior_loss (or null), learning_rate, seconds, memory |
| validation | step, loss |
| preview | step, index, path (relative to the run folder) |
| checkpoint | step, path (relative to the run folder) |
| notice | text |
| saved | path |
| stopped | step |
| finished | seconds |
| failed | message, expected (whether the message is meant for the user as it is) |

`seconds` are of one step, `memory` is the peak in bytes so far.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = 1

KINDS = frozenset(
    {
        *("stage", "step", "validation", "preview", "checkpoint"),
        *("notice", "saved", "stopped", "finished", "failed"),
    }
)


@dataclass(frozen=True)
class Event:
    """One thing that happened: its kind, the time in seconds since the epoch, and its data."""

    kind: str
    time: float
    data: dict[str, Any]

    def to_line(self) -> str:
        """The event as one line of JSON, without the newline."""
        return json.dumps({"v": VERSION, "kind": self.kind, "time": self.time, **self.data})


Emit = Callable[..., None]  # emit(kind, **data)


def event_from_line(line: str) -> Event | None:
    """The event of a line; None for a damaged line, an unknown kind or a newer version."""
    try:
        data = json.loads(line)
        version, kind, moment = data.pop("v"), data.pop("kind"), float(data.pop("time"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if version != VERSION or not isinstance(kind, str) or kind not in KINDS:
        return None
    return Event(kind, moment, data)


class EventWriter:
    """Appends events to a file; each is on disk for other processes when `emit` returns."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  closed by close()

    def emit(self, kind: str, **data: Any) -> None:
        """Writes one event. `kind` is one of the table's; raises ValueError otherwise."""
        if kind not in KINDS:
            raise ValueError(f"unknown kind of event: {kind}")
        self._file.write(Event(kind, time.time(), data).to_line() + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class EventReader:
    """Follows a file of events that another process appends to.

    Args:
        path: the file; it may not exist yet.
        skip_old: start after what is already there (an earlier attempt at the same run).
    """

    def __init__(self, path: Path, *, skip_old: bool = False) -> None:
        self._path = path
        self._offset = path.stat().st_size if skip_old and path.exists() else 0
        self._rest = b""

    def new_events(self) -> list[Event]:
        """Events that came since the last call. A half-written last line waits for its end."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                chunk = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        events = (event_from_line(line.decode("utf-8", "replace")) for line in lines)
        return [event for event in events if event is not None]
