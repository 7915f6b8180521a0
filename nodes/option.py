"""One widget of Train Options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .host import io


@dataclass(frozen=True)
class Option:
    """A widget, the recipe part and field that it sets, and the parser of its value.

    The widget is an optional input, so that prompts in API format may leave it out.
    """

    widget: io.Input
    part: str
    field: str
    parse: Callable[[Any], Any] = lambda value: value

    def __post_init__(self) -> None:
        self.widget.optional = True

    def value_of(self, chosen: Mapping[str, Any]) -> Any:
        """The field's value from a node's inputs; the widget's default if it is not among them."""
        return self.parse(chosen.get(self.widget.id, self.widget.default))


def none_if_zero(value: float) -> float | None:
    """`value`, or None for 0: a numeric widget cannot be empty."""
    return value or None


def side_if_set(pixels: int) -> int | None:
    """A side in pixels, at least 64, or None for 0."""
    return max(64, pixels) if pixels else None


def split_lines(text: str) -> list[str]:
    """The non-blank lines, stripped."""
    return [line.strip() for line in text.splitlines() if line.strip()]
