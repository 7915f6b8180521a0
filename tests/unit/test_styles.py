"""The panels' style sheets."""

from pathlib import Path

import pytest

CSS = Path(__file__).resolve().parents[2] / "js" / "css"


@pytest.mark.parametrize("path", sorted(CSS.glob("*.css")), ids=lambda path: path.name)
def test_nothing_moves_by_itself_while_a_training_needs_the_processor(path):
    """A breathing dot and a gliding bar took half as much again as the whole editor."""
    text = path.read_text(encoding="utf-8")
    assert not [word for word in ("animation:", "transition:", "@keyframes") if word in text]
