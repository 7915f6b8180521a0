"""What the browser is told while something goes on: at most four messages a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

INTERVAL_SECONDS = 0.25

Send = Callable[[dict[str, Any]], None]


class Throttle:
    """Collects values by name and sends those that are new, not too often. Safe in threads.

    Args:
        send: is given the new values.
        clock: seconds, as `time.monotonic`.
    """

    def __init__(self, send: Send, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._next_send_time = float("-inf")
        self._pending: dict[str, Any] = {}
        self._lock = Lock()

    def add(self, values: Mapping[str, Any]) -> None:
        """Notes values, and sends all that wait if the last message is a while ago."""
        with self._lock:
            self._pending.update(values)
            if self._clock() >= self._next_send_time:
                self._flush()

    def flush(self) -> None:
        """Sends what waits."""
        with self._lock:
            if self._pending:
                self._flush()

    def _flush(self) -> None:
        waiting, self._pending = self._pending, {}
        self._send(waiting)
        self._next_send_time = (
            self._clock() + INTERVAL_SECONDS
        )  # a slow message counts from its end
