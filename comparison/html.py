"""Builds HTML from function calls; all text is escaped unless it is `Html`."""

from __future__ import annotations

from html import escape
from typing import Any


class Html(str):
    """A string that is already HTML."""


_VOID = {"img", "meta", "br", "hr", "link"}


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element. Children are texts, numbers, elements, or sequences of them; None is skipped.

    Attribute ``class_`` becomes ``class``, ``data_row`` becomes ``data-row``; True yields a
    valueless attribute, None and False are skipped.
    """
    opened = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{opened}>")
    return Html(f"<{name}{opened}>{join(*children)}</{name}>")


def join(*children: Any) -> Html:
    """Concatenates elements and texts."""
    return Html("".join(map(_child, children)))


def _child(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, list | tuple):
        return join(*child)
    return child if isinstance(child, Html) else escape(str(child), quote=False)


def _attribute(key: str, value: Any) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
