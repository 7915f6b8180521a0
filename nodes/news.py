"""What the browser is told while something goes on: at most four messages a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

SECONDS = 0.25

Send = Callable[[dict[str, Any]], None]


class News:
    """Collects values by name and sends those that are new, not too often. Safe in threads.

    Args:
        send: is given the new values.
        clock: seconds, as `time.monotonic`.
    """

    def __init__(self, send: Send, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._due = float("-inf")
        self._waiting: dict[str, Any] = {}
        self._lock = Lock()

    def add(self, values: Mapping[str, Any]) -> None:
        """Notes values, and sends all that wait if the last message is a while ago."""
        with self._lock:
            self._waiting.update(values)
            if self._clock() >= self._due:
                self._flush()

    def flush(self) -> None:
        """Sends what waits."""
        with self._lock:
            if self._waiting:
                self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        self._send(waiting)
        self._due = self._clock() + SECONDS  # a slow message counts from its end
