"""Positions nodes and groups in columns and rows without overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .graph import Group, Node, Page

# In pixels of the frontend's canvas. A node's title is above its position.
TITLE = 30
COLUMN_GAP = 60  # between columns
# Between the nodes of a column. With Vue nodes, Load Adapter is 36 taller than on the canvas, and
# an error bar adds 30.
NODE_GAP = 80
PADDING, HEADER, FOOT = 20, 50, 40  # inside a group: at the sides, for the title, at the bottom
GROUP_GAP = 60  # between groups
COLOUR = "#3f789e"

# Height that a node gains permanently with its first preview (212 on the canvas, 248 with Vue
# nodes) or warning.
GROWTH = {"KSampler": 248, "Likeness_LoadAdapter": 64}

Places = dict[Node, tuple[int, int]]


def layout(page: Page) -> tuple[Places, list[dict[str, Any]]]:
    """The position of each node, and the groups as the frontend saves them."""
    places: Places = {}
    groups: list[dict[str, Any]] = []
    left = max((note.width for note in page.notes), default=-GROUP_GAP) + GROUP_GAP
    _stack(page.notes, -left, 0, places)
    top = 0
    for row in page.rows:
        x, bottom, first = 0, 0, len(groups)
        for group in row:
            right, low = _place_group(group, x, top, places)
            groups.append(_saved_group(group, len(groups) + 1, x, top, right, low))
            x, bottom = right + 2 * PADDING + GROUP_GAP, max(bottom, low)
        for saved_group in groups[first:]:  # as tall as the tallest in the row
            bounds = saved_group["bounding"]
            bounds[3] = bottom + FOOT - bounds[1]
        top = bottom + FOOT + GROUP_GAP + HEADER + TITLE
    return places, groups


def _place_group(group: Group, x: int, top: int, places: Places) -> tuple[int, int]:
    """Places a group's nodes; returns their right and bottom edges."""
    bottom = top
    for column in group.columns:
        bottom = max(bottom, _stack(column, x, top, places))
        x += max(node.width for node in column) + COLUMN_GAP
    return x - COLUMN_GAP, bottom


def _stack(column: Sequence[Node], x: int, top: int, places: Places) -> int:
    """Places nodes one below the other; returns the bottom edge of the last one."""
    y = bottom = top
    for node in column:
        places[node] = (x, y)
        bottom = y + node.size()[1] + GROWTH.get(node.kind, 0)
        y = bottom + TITLE + NODE_GAP
    return bottom


def _saved_group(
    group: Group, number: int, x: int, top: int, right: int, bottom: int
) -> dict[str, Any]:
    corner = (x - PADDING, top - TITLE - HEADER)
    size = (right - x + 2 * PADDING, bottom + FOOT - corner[1])
    return {
        "id": number,
        "title": group.title,
        "bounding": [*corner, *size],
        "color": COLOUR,
        "font_size": 24,
        "flags": {},
    }
