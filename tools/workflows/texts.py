"""The notes in the workflows, from `notes/<workflow>.md`."""

from __future__ import annotations

from pathlib import Path

from .graph import Note, note

WIDTH = 420
LINE, LETTERS = 20, 62  # height of a line, and roughly how many characters it holds


def read_me(name: str) -> Note:
    """The note on a workflow's left, as tall as its text."""
    text = Path(__file__).with_name("notes").joinpath(f"{name}.md").read_text("utf-8").strip()
    lines = sum(1 + len(line) // LETTERS for line in text.splitlines())
    return note("Read me first", text, WIDTH, 60 + LINE * lines)
