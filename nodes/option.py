"""One widget of Train Options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .host import io


@dataclass(frozen=True)
class Option:
    """A widget, the recipe's part and field it sets, and how its value is read."""

    widget: io.Input
    part: str
    field: str
    read: Callable[[Any], Any] = lambda value: value
