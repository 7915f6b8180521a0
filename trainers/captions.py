"""Captions of photographs: text files beside them, of the same stem."""

from __future__ import annotations

from pathlib import Path

CAPTION_SUFFIXES = (".txt", ".caption")  # the first that is there is used
_MAX_LENGTH = 100_000  # characters; the text encoder reads at most 225 tokens


def is_caption(path: Path) -> bool:
    """Whether a file's name marks it as a caption."""
    return path.suffix.lower() in CAPTION_SUFFIXES


def caption_file(path: Path) -> Path | None:
    """The caption file of a photograph; None if there is none."""
    files = (path.with_suffix(suffix) for suffix in CAPTION_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def read_caption(path: Path) -> tuple[str | None, list[str]]:
    """The caption of a photograph, on one line; or None and a note with the reason."""
    file = caption_file(path)
    if file is None:
        missing = " or ".join((path.with_suffix(".txt").name, ".caption"))
        return None, [f"{path.name}: there is no {missing}; the prompt is used instead."]
    try:
        with open(file, encoding="utf-8-sig") as opened:
            caption = " ".join(opened.read(_MAX_LENGTH).split())
    except (OSError, UnicodeDecodeError):
        return None, [f"{file.name} is not UTF-8 text; the prompt is used for {path.name}."]
    if not caption:
        return None, [f"{file.name} is empty; the prompt is used for {path.name}."]
    return caption, []
