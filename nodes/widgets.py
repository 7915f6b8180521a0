"""Widgets with what each of ours has: a name, a default, a range and a tooltip."""

from __future__ import annotations

from typing import Any

from .host import ADVANCED, io

MAX_STEPS = 1_000_000


def int_widget(
    id: str,
    default: int,
    minimum: int,
    maximum: int,
    tooltip: str,
    *,
    advanced: bool = False,
    **more: Any,
) -> io.Input:
    """A whole number from `minimum` to `maximum`; `more` goes to ComfyUI as it is."""
    return io.Int.Input(
        id,
        default=default,
        min=minimum,
        max=maximum,
        tooltip=tooltip,
        **_advanced_kwargs(advanced),
        **more,
    )


def float_widget(
    id: str,
    default: float,
    minimum: float,
    maximum: float,
    step: float,
    tooltip: str,
    *,
    advanced: bool = False,
    **more: Any,
) -> io.Input:
    """A number from `minimum` to `maximum`, by `step`; `more` goes to ComfyUI as it is."""
    more |= {"tooltip": tooltip, **_advanced_kwargs(advanced)}
    return io.Float.Input(id, default=default, min=minimum, max=maximum, step=step, **more)


def seed(id: str, tooltip: str, *, advanced: bool = False) -> io.Input:
    """A seed that stays as it is after a queue; browsers keep whole numbers up to 2**53 exact."""
    return int_widget(id, 0, 0, 2**53 - 1, tooltip, advanced=advanced, control_after_generate=False)


def size_widget(id: str, default: int, tooltip: str) -> io.Input:
    """A side of a picture, in pixels."""
    return int_widget(id, default, 64, 2048, tooltip, step=8)


def bool_widget(
    id: str, tooltip: str, *, default: bool = False, advanced: bool = False
) -> io.Input:
    """On or off."""
    return io.Boolean.Input(id, default=default, tooltip=tooltip, **_advanced_kwargs(advanced))


def _advanced_kwargs(advanced: bool) -> dict[str, Any]:
    return {"optional": True, "extra_dict": ADVANCED} if advanced else {}


def with_search_aliases(schema: io.Schema, *words: str) -> io.Schema:
    """A node that is also found by these words, where ComfyUI knows that (0.11.0 and later)."""
    if hasattr(schema, "search_aliases"):
        schema.search_aliases = list(words)
    return schema
