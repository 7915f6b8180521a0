"""Rate limit for progress messages to the browser: at most four per second."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

INTERVAL_SECONDS = 0.25

Send = Callable[[dict[str, Any]], None]


class Throttle:
    """Merges values by name and sends them at a limited rate. Thread-safe.

    Args:
        send: called with the values added since the last message.
        clock: returns seconds, as `time.monotonic`.
    """

    def __init__(self, send: Send, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._next_send_time = float("-inf")
        self._pending: dict[str, Any] = {}
        self._lock = Lock()

    def add(self, values: Mapping[str, Any]) -> None:
        """Adds values; sends all pending ones if the last message is old enough."""
        with self._lock:
            self._pending.update(values)
            if self._clock() >= self._next_send_time:
                self._flush()

    def flush(self) -> None:
        """Sends all pending values."""
        with self._lock:
            if self._pending:
                self._flush()

    def _flush(self) -> None:
        values, self._pending = self._pending, {}
        self._send(values)
        # From the end of the message, which may be slow.
        self._next_send_time = self._clock() + INTERVAL_SECONDS
