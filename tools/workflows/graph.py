"""The parts of a workflow: a page has rows of groups, a group has columns of nodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")

# Row heights of a node on the frontend's canvas, in pixels.
SLOT, WIDGET, BOTTOM = 20, 24, 14

# Height that `js/` adds to a node, or removes by hiding widgets, in pixels.
HIDDEN_WIDGETS = 26  # settings of Train Options that are shown by a button
PANELS = {
    "Likeness_ClassImages": 56,
    "Likeness_Subject": 194,
    "Likeness_TrainDreamBooth": 404,
    "Likeness_TrainLoRA": 404,
    "Likeness_PoseSet": 156,
    "Likeness_TrainOptions": 30 + WIDGET - HIDDEN_WIDGETS * WIDGET,
}


def _schemas() -> dict[str, Any]:
    files = (ROOT / "tests" / "golden" / f"{whose}_nodes.json" for whose in ("core", "our"))
    return {name: row for f in files for name, row in json.loads(f.read_text("utf-8")).items()}


SCHEMAS = _schemas()


def has_control(part: dict[str, Any]) -> bool:
    """Whether the frontend adds a widget "control after generate" after this one."""
    default = part["type"] == "INT" and part["name"] in ("seed", "noise_seed")
    return bool(part.get("control_after_generate", default))


@dataclass(frozen=True)
class Model:
    """A model file and its download URL; `url` is empty for bundled models."""

    name: str
    folder: str
    url: str = ""


@dataclass(frozen=True)
class Socket:
    """An output of a node, to connect to an input."""

    node: Node
    index: int


@dataclass(eq=False)
class Node:
    """A node; `given` maps inputs to widget values, `Socket`s or `Model`s.

    Other widgets have their defaults. If `height` is None, it is computed from the node's rows.
    """

    kind: str
    given: dict[str, Any]
    title: str = ""
    width: int = 340
    height: int | None = None

    def __getitem__(self, output: str) -> Socket:
        names = [slot["name"] for slot in SCHEMAS[self.kind]["outputs"]]
        return Socket(self, names.index(output))

    def size(self) -> tuple[int, int]:
        """Width and height without the title."""
        if self.height is not None:
            return self.width, self.height
        row = SCHEMAS[self.kind]
        widgets = [part for part in row["inputs"] if part["type"] in WIDGETS]
        slots = max(len(row["inputs"]) - len(widgets), len(row["outputs"]))
        lines = len(widgets) + sum(has_control(part) for part in widgets)
        panel = PANELS.get(self.kind, 0)
        return self.width, SLOT * slots + WIDGET * lines + BOTTOM + panel


@dataclass(eq=False)
class Note(Node):
    """A note with Markdown text."""

    kind: str = "MarkdownNote"
    given: dict[str, Any] = field(default_factory=dict)
    text: str = ""


def node(
    kind: str, title: str = "", width: int = 340, height: int | None = None, /, **given: Any
) -> Node:
    """A node of the type `kind`. Raises ValueError for an unknown input."""
    known = {part["name"] for part in SCHEMAS[kind]["inputs"]}
    if unknown := set(given) - known:
        raise ValueError(f"{kind} has no {unknown}")
    return Node(kind, given, title, width, height)


def note(title: str, text: str, width: int = 400, height: int = 500) -> Note:
    """A note with this Markdown."""
    return Note(title=title, text=text, width=width, height=height)


@dataclass(frozen=True)
class Group:
    """A titled group with columns of nodes."""

    title: str
    columns: Sequence[Sequence[Node]]


@dataclass(frozen=True)
class Page:
    """A workflow: notes on the left, and rows of groups."""

    name: str
    notes: Sequence[Note]
    rows: Sequence[Sequence[Group]]

    def nodes(self) -> list[Node]:
        """All nodes, in the order of their ids."""
        inside = [n for row in self.rows for g in row for column in g.columns for n in column]
        return [*self.notes, *inside]
