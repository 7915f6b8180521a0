"""Events of a run: one JSON object per line in `events.jsonl`.

Kinds and their data:

| kind | data |
|---|---|
| stage | name, done, total |
| step | step, total, loss, instance_loss, prior_loss (or null), learning_rate, seconds, memory |
| validation | step, loss |
| preview | step, index, path (relative to the run folder) |
| checkpoint | step, path (relative to the run folder) |
| adapter | step, path |
| notice | text |
| saved | path |
| restart | text (why all of its processes have to be started again) |
| stopped | step |
| finished | seconds |
| failed | message, expected (whether the message is meant for the user as is) |

A step's `seconds` are its duration, its `memory` is the peak so far in bytes.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = 1
BLOCK_SIZE = 1 << 20  # bytes per read; also the longest line that is read

_LONGEST_TEXT = 20_000
_RELATIVE = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*){0,3}", re.ASCII)

Validator = Callable[[Any], bool]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300  # also for ints beyond float's range


def _is_number_or_null(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT


def _is_relative_path(value: Any) -> bool:
    """Whether it is a path inside the run folder."""
    return isinstance(value, str) and _RELATIVE.fullmatch(value) is not None


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


FIELDS: dict[str, dict[str, Validator]] = {
    "stage": {"name": _is_text, "done": _is_count, "total": _is_count},
    "step": {
        "step": _is_count,
        "total": _is_count,
        "loss": _is_number,
        "instance_loss": _is_number,
        "prior_loss": _is_number_or_null,
        "learning_rate": _is_number,
        "seconds": _is_number,
        "memory": _is_count,
    },
    "validation": {"step": _is_count, "loss": _is_number},
    "preview": {"step": _is_count, "index": _is_count, "path": _is_relative_path},
    "checkpoint": {"step": _is_count, "path": _is_relative_path},
    "adapter": {"step": _is_count, "path": _is_text},
    "notice": {"text": _is_text},
    "saved": {"path": _is_text},
    "restart": {"text": _is_text},
    "stopped": {"step": _is_count},
    "finished": {"seconds": _is_number},
    "failed": {"message": _is_text, "expected": _is_bool},
}


@dataclass(frozen=True)
class Event:
    """An event: its kind, the time in seconds since the epoch, and its data."""

    kind: str
    time: float
    data: dict[str, Any]

    def to_line(self) -> str:
        """The event as one line of JSON, without the newline."""
        return json.dumps(self.to_data())

    def to_data(self) -> dict[str, Any]:
        """The event as JSON."""
        return {"v": VERSION, "kind": self.kind, "time": self.time, **self.data}


Emit = Callable[..., None]  # emit(kind, **data)


def event_from_line(line: str) -> Event | None:
    """Parses an event, keeping only the fields of its kind.

    None for a damaged line, an unknown kind, another version, or missing or mistyped fields.
    """
    try:
        data = json.loads(line)
        version, kind, moment = data.pop("v"), data.pop("kind"), data.pop("time")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if version != VERSION or not isinstance(kind, str) or not _is_number(moment):
        return None
    fields = FIELDS.get(kind)
    if fields is None or not all(n in data and check(data[n]) for n, check in fields.items()):
        return None
    return Event(kind, float(moment), {name: data[name] for name in fields})


class EventWriter:
    """Appends events to a file; other processes can read each one once `emit` returns."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115  closed by close()
        if _has_partial_last_line(path):  # left by a process killed while writing
            self._write(b"\n")

    def emit(self, kind: str, **data: Any) -> None:
        """Writes one event. Raises ValueError for an unknown kind, OSError on a full disk."""
        if kind not in FIELDS:
            raise ValueError(f"unknown kind of event: {kind}")
        cut = {k: v[:_LONGEST_TEXT] if isinstance(v, str) else v for k, v in data.items()}
        self._write(Event(kind, time.time(), cut).to_line().encode() + b"\n")

    def _write(self, line: bytes) -> None:
        while line:
            line = line[self._file.write(line) :]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _has_partial_last_line(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


class EventReader:
    """Follows a file of events that another process appends to.

    Args:
        path: the file, which may not exist yet.
        start: byte offset to start at, the beginning of a line; `offset` is the next one.
        skip_existing: start after the events already there (of an earlier attempt).
    """

    def __init__(self, path: Path, *, start: int = 0, skip_existing: bool = False) -> None:
        self._path = path
        self.offset = path.stat().st_size if skip_existing and path.exists() else start

    def new_events(self) -> list[Event]:
        """Events since the last call; a partial last line is left for a later one."""
        events: list[Event] = []
        while lines := self._read_lines():
            events += filter(None, (event_from_line(text) for text in lines))
        return events

    def read_block(self) -> list[Event]:
        """Like `new_events`, but of at most BLOCK_SIZE bytes; call again for more."""
        return list(filter(None, (event_from_line(text) for text in self._read_lines())))

    def _read_lines(self) -> list[str]:
        try:
            with open(self._path, "rb") as file:
                file.seek(self.offset)
                chunk = file.read(BLOCK_SIZE)
        except FileNotFoundError:
            return []
        end = chunk.rfind(b"\n") + 1
        if not end and len(chunk) == BLOCK_SIZE:
            end = BLOCK_SIZE  # no event is this long: its parts are damaged lines
        self.offset += end
        return chunk[:end].decode("utf-8", "replace").split("\n") if end else []
