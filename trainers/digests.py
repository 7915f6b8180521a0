"""Content digests of files, cached so that large ones are read once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .base_file import model_files
from .errors import BaseModelError
from .files import write_atomic

OnRead = Callable[[Path], object]  # called with a file while it is read; may raise to cancel


def content_digest(path: Path, cache: Path | None = None, on_read: OnRead | None = None) -> str:
    """SHA-256 of a file's or model folder's content, 64 hex digits, whatever its location.

    For a diffusers folder: of the names and contents of the files that are loaded. `cache` is a
    folder; its ``digests.json`` caches digests by path, size and modification time. `on_read` is
    called for each block of a file whose digest is not cached.

    Raises:
        BaseModelError: a file is missing or cannot be read.
    """
    path = Path(path)
    known = _read_cache(cache)
    before = dict(known)
    try:
        if path.is_dir():
            lines = [
                f"{file.relative_to(path).as_posix()} {_digest(file, known, on_read)}\n"
                for file in model_files(path)
            ]
            digest = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
        else:
            digest = _digest(path, known, on_read)
    except OSError as error:
        raise BaseModelError(f"{error.filename} cannot be read: {error.strerror}") from None
    if cache is not None and known != before:
        with suppress(OSError):  # without a cache it only takes longer
            write_atomic(Path(cache) / "digests.json", json.dumps(known, indent=1, sort_keys=True))
    return digest


def cached_digest(file: Path, cache: Path) -> str | None:
    """Cached digest of a file; None if there is none or the file has changed."""
    try:
        return _cached(file, _read_cache(cache))
    except OSError:
        return None


def _cached(file: Path, known: dict[str, Any]) -> str | None:
    stat, entry = file.stat(), known.get(str(file.resolve()))
    if isinstance(entry, list) and len(entry) == 3:
        return str(entry[2]) if entry[:2] == [stat.st_size, stat.st_mtime_ns] else None
    return None


def _digest(file: Path, known: dict[str, Any], on_read: OnRead | None) -> str:
    if remembered := _cached(file, known):
        return remembered
    stat = file.stat()
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            if on_read is not None:
                on_read(file)
            digest.update(block)
    known[str(file.resolve())] = [stat.st_size, stat.st_mtime_ns, digest.hexdigest()]
    return digest.hexdigest()


def _read_cache(cache: Path | None) -> dict[str, Any]:
    if cache is None:
        return {}
    try:
        known = json.loads((Path(cache) / "digests.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # missing or damaged: it is overwritten
    return known if isinstance(known, dict) else {}
