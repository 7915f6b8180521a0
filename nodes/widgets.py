"""Widgets with what each of ours has: a name, a default, a range and a tooltip."""

from __future__ import annotations

from typing import Any

from .host import ADVANCED, io

MOST_STEPS = 1_000_000


def whole(
    id: str,
    default: int,
    least: int,
    most: int,
    tooltip: str,
    *,
    advanced: bool = False,
    **more: Any,
) -> io.Input:
    """A whole number from `least` to `most`; `more` goes to ComfyUI as it is."""
    return io.Int.Input(
        id, default=default, min=least, max=most, tooltip=tooltip, **_seldom(advanced), **more
    )


def number(
    id: str,
    default: float,
    least: float,
    most: float,
    step: float,
    tooltip: str,
    *,
    advanced: bool = False,
    **more: Any,
) -> io.Input:
    """A number from `least` to `most`, by `step`; `more` goes to ComfyUI as it is."""
    more |= {"tooltip": tooltip, **_seldom(advanced)}
    return io.Float.Input(id, default=default, min=least, max=most, step=step, **more)


def seed(id: str, tooltip: str, *, advanced: bool = False) -> io.Input:
    """A seed that stays as it is after a queue; browsers keep whole numbers up to 2**53 exact."""
    return whole(id, 0, 0, 2**53 - 1, tooltip, advanced=advanced, control_after_generate=False)


def side(id: str, default: int, tooltip: str) -> io.Input:
    """A side of a picture, in pixels."""
    return whole(id, default, 64, 2048, tooltip, step=8)


def switch(id: str, tooltip: str, *, default: bool = False, advanced: bool = False) -> io.Input:
    """On or off."""
    return io.Boolean.Input(id, default=default, tooltip=tooltip, **_seldom(advanced))


def _seldom(advanced: bool) -> dict[str, Any]:
    return {"optional": True, "extra_dict": ADVANCED} if advanced else {}


def known_as(schema: io.Schema, *words: str) -> io.Schema:
    """A node that is also found by these words, where ComfyUI knows that (0.11.0 and later)."""
    if hasattr(schema, "search_aliases"):
        schema.search_aliases = list(words)
    return schema
