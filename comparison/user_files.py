"""Reads small text and JSON files from users, and numbers files that are written for them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .errors import ComparisonError

_MAX_BYTES = 64 * 1024 * 1024


def next_number(folder: Path, name: str) -> int:
    """The first n after those of the files ``<name>-<n>.png`` in a folder; from 0."""
    numbered = re.compile(re.escape(name) + r"-([0-9]{1,9})\.png", re.IGNORECASE)
    found = [match for path in folder.iterdir() if (match := numbered.fullmatch(path.name))]
    return max((int(match[1]) + 1 for match in found), default=0)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises ComparisonError."""
    try:
        return _read(path).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise ComparisonError(f"{path} is not UTF-8 text: save it as UTF-8.") from None


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ComparisonError(
                f"{path} is larger than {_MAX_BYTES >> 20} MB: is it the right file?"
            )
        return path.read_bytes()
    except OSError as error:
        raise ComparisonError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError:  # an invalid file name, such as one with a null byte
        raise ComparisonError(f"{path} cannot be read: the file does not exist.") from None


def read_json(path: Path) -> Any:
    """The parsed JSON of a file in UTF-8, or in UTF-16 as PowerShell writes it.

    Raises ComparisonError.
    """
    try:
        return json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise ComparisonError(f"{path} is not JSON: {error}.") from None
