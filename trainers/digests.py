"""Digests of files by content, remembered so that large ones are read once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .base_file import loaded_files
from .errors import BaseModelError
from .files import write_whole

Reading = Callable[[Path], object]  # called with a file while it is read; may raise to end that


def content_digest(path: Path, cache: Path | None = None, reading: Reading | None = None) -> str:
    """SHA-256 of a file's or a model folder's content, 64 hex digits, the same wherever it lies.

    For a diffusers folder: of the names and contents of the files that are loaded. `cache` is a
    folder; its ``digests.json`` remembers digests by path, size and time of change.
    `reading` is called for each block of a file whose digest is not known.

    Raises:
        BaseModelError: a file is missing or cannot be read.
    """
    path = Path(path)
    known = _read_known(cache)
    before = dict(known)
    try:
        if path.is_dir():
            lines = [
                f"{file.relative_to(path).as_posix()} {_digest(file, known, reading)}\n"
                for file in loaded_files(path)
            ]
            digest = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
        else:
            digest = _digest(path, known, reading)
    except OSError as error:
        raise BaseModelError(f"{error.filename} cannot be read: {error.strerror}") from None
    if cache is not None and known != before:
        with suppress(OSError):  # a cache that cannot be written costs time only
            write_whole(Path(cache) / "digests.json", json.dumps(known, indent=1, sort_keys=True))
    return digest


def known_digest(file: Path, cache: Path) -> str | None:
    """The digest of a file that was computed before, if the file is as it was then; else None."""
    try:
        return _remembered(file, _read_known(cache))
    except OSError:
        return None


def _remembered(file: Path, known: dict[str, Any]) -> str | None:
    stat, entry = file.stat(), known.get(str(file.resolve()))
    if isinstance(entry, list) and len(entry) == 3:
        return str(entry[2]) if entry[:2] == [stat.st_size, stat.st_mtime_ns] else None
    return None


def _digest(file: Path, known: dict[str, Any], reading: Reading | None) -> str:
    if remembered := _remembered(file, known):
        return remembered
    stat = file.stat()
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            if reading is not None:
                reading(file)
            digest.update(block)
    known[str(file.resolve())] = [stat.st_size, stat.st_mtime_ns, digest.hexdigest()]
    return digest.hexdigest()


def _read_known(cache: Path | None) -> dict[str, Any]:
    if cache is None:
        return {}
    try:
        known = json.loads((Path(cache) / "digests.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # absent or damaged: it is written anew
    return known if isinstance(known, dict) else {}
