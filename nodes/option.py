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
    parse: Callable[[Any], Any] = lambda value: value


def none_if_zero(value: float) -> float | None:
    """What a widget that cannot be empty stands for."""
    return value or None


def split_lines(text: str) -> list[str]:
    """The lines with something in them."""
    return [line.strip() for line in text.splitlines() if line.strip()]
