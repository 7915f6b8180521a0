"""One widget of Train Options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .host import io


@dataclass(frozen=True)
class Option:
    """A widget, the recipe part and field that it sets, and the parser of its value."""

    widget: io.Input
    part: str
    field: str
    parse: Callable[[Any], Any] = lambda value: value


def none_if_zero(value: float) -> float | None:
    """`value`, or None for 0: a numeric widget cannot be empty."""
    return value or None


def split_lines(text: str) -> list[str]:
    """The non-blank lines, stripped."""
    return [line.strip() for line in text.splitlines() if line.strip()]
