"""Shorthands for widgets with an id, a default, a range and a tooltip."""

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
    """An integer from `minimum` to `maximum`; `more` is passed on to ComfyUI."""
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
    """A number from `minimum` to `maximum`, by `step`; `more` is passed on to ComfyUI."""
    more |= {"tooltip": tooltip, **_advanced_kwargs(advanced)}
    return io.Float.Input(id, default=default, min=minimum, max=maximum, step=step, **more)


def seed(id: str, tooltip: str, *, advanced: bool = False) -> io.Input:
    """A seed that queuing does not change; browsers hold integers exactly only up to 2**53."""
    return int_widget(id, 0, 0, 2**53 - 1, tooltip, advanced=advanced, control_after_generate=False)


def size_widget(id: str, default: int, tooltip: str) -> io.Input:
    """A width or height, in pixels."""
    return int_widget(id, default, 64, 2048, tooltip, step=8)


def bool_widget(
    id: str, tooltip: str, *, default: bool = False, advanced: bool = False
) -> io.Input:
    """An on/off switch."""
    return io.Boolean.Input(id, default=default, tooltip=tooltip, **_advanced_kwargs(advanced))


def _advanced_kwargs(advanced: bool) -> dict[str, Any]:
    return {"optional": True, "extra_dict": ADVANCED} if advanced else {}


def with_search_aliases(schema: io.Schema, *words: str) -> io.Schema:
    """Lets search find the node by `words`, where ComfyUI supports it (0.11.0 and later)."""
    if hasattr(schema, "search_aliases"):
        schema.search_aliases = list(words)
    return schema
