"""Atomic file writes that survive a power cut.

POSIX persists neither a file's bytes nor its name unless both the file and its folder are synced.
So the order is always: write, sync the file, rename, sync the folder.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import BinaryIO

_RETRY_SECONDS = 2.0 if os.name == "nt" else 0.0
_STALE_SECONDS = 24 * 3600.0  # since the last write
_DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}
# Rust's messages: "No space left on device (os error 28)"; 112 and 39 are Windows' codes.
_DISK_FULL_MESSAGE = re.compile(r"os error (28|122|112|39)\b|no space left", re.IGNORECASE)
# Errors of file systems that cannot sync a folder.
_FSYNC_UNSUPPORTED = {
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EACCES,
    errno.EPERM,
    errno.EBADF,
}


def replace(source: Path, target: Path) -> None:
    """`os.replace`; on Windows it retries for up to two seconds while another program, such as a
    virus scanner, has either path open. Raises OSError.
    """
    deadline = time.monotonic() + _RETRY_SECONDS
    while True:
        try:
            return os.replace(source, target)
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


@contextmanager
def atomic_file(
    path: Path,
    *,
    durable: bool = True,
    exclusive: bool = False,
    check: Callable[[Path], object] = lambda partial: None,
) -> Iterator[BinaryIO]:
    """Opens a new file, which is renamed to `path` if the block ends without an error.

    Creates the folder. Until then the file has a hidden name beside `path`, so readers never see a
    partial file, and an error leaves nothing behind. Files left by killed processes are removed
    after a day. Raises OSError (see `is_disk_full`).

    Args:
        durable: if false, a power cut may still undo the rename: suitable for a cache.
        exclusive: no other process writes `path`, so what a killed one left is overwritten: large
            files would otherwise fill the disk.
        check: called with the path of the synced file before it is renamed.
    """
    make_folder(path.parent)
    if not exclusive:
        _remove_stale_partials(path)
    number = "" if exclusive else f".{secrets.token_hex(4)}"
    partial = path.with_name(f".{path.name}{number}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        check(partial)
        replace(partial, path)
    finally:
        with suppress(OSError):  # the error before says more
            partial.unlink(missing_ok=True)
    if durable:
        fsync_folder(path.parent)


def _remove_stale_partials(path: Path) -> None:
    """Removes partial files that killed processes left: no write takes a day."""
    for left in path.parent.glob(f".{escape(path.name)}.*.partial"):
        with suppress(OSError):  # gone, or open elsewhere: a later call removes it
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Writes `data` with `atomic_file`. Raises OSError."""
    with atomic_file(path, durable=durable) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def replace_between_markers(page: Path, name: str, text: str) -> None:
    """Replaces the text between ``<!-- name: begin -->`` and ``<!-- name: end -->`` of a page.

    Raises ValueError unless the page has both markers.
    """
    markers = [f"<!-- {name}: {edge} -->" for edge in ("begin", "end")]
    before, begin, rest = page.read_text(encoding="utf-8").partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not (begin and end):
        raise ValueError(f"{page} needs both markers {markers[0]} and {markers[1]}")
    write_atomic(page, f"{before}{begin}\n{text.strip()}\n{end}{after}")


def fsync_folder(folder: Path) -> None:
    """Syncs the names in a folder to disk; no-op where that is not supported."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _FSYNC_UNSUPPORTED:
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Creates a folder and its missing parents, each synced to disk."""
    if folder.is_dir():
        return
    if folder.parent != folder:  # otherwise a missing drive
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_folder(folder.parent)


def move_folder(partial: Path, target: Path) -> None:
    """Renames a folder, whose files are synced, to `target`; then removes the one it replaces."""
    fsync_folder(partial)
    aside = _trash_path(target)
    if target.exists():
        replace(target, aside)
    replace(partial, target)
    fsync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Removes a folder, renaming it first so that it is never seen half deleted."""
    aside = _trash_path(folder)
    replace(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _trash_path(folder: Path) -> Path:
    """A free hidden name beside `folder`."""
    aside = folder.with_name(f".old-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    return aside


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that the disk or the user's quota is full."""
    number = getattr(error, "errno", None)
    return number in _DISK_FULL_ERRNOS or (
        number is None and bool(_DISK_FULL_MESSAGE.search(str(error)))
    )
