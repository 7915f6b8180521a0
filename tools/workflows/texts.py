"""The notes in the workflows: `notes/<workflow>.md`."""

from __future__ import annotations

from pathlib import Path

from .graph import Note, note

WIDTH = 420
LINE, LETTERS = 20, 62  # a line's height, and about how many letters it holds


def read_me(name: str) -> Note:
    """The note at a workflow's left edge, as high as its text."""
    text = Path(__file__).with_name("notes").joinpath(f"{name}.md").read_text("utf-8").strip()
    lines = sum(1 + len(line) // LETTERS for line in text.splitlines())
    return note("Read me first", text, WIDTH, 60 + LINE * lines)
