"""Files that are there whole or not at all, also after a power cut.

POSIX keeps neither a file's bytes nor its name unless both are synced: the file, and the folder
that has the name. So the order is everywhere: write, sync the file, rename, sync the folder.
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

_RETRY_SECONDS = 2.0 if os.name == "nt" else 0.0  # seconds
_STALE_SECONDS = 24 * 3600.0  # seconds since anything was written
_DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}
# Rust's messages: "No space left on device (os error 28)"; 112 and 39 are Windows' codes.
_DISK_FULL_MESSAGE = re.compile(r"os error (28|122|112|39)\b|no space left", re.IGNORECASE)
# What file systems answer that have no way to sync a folder.
_FSYNC_UNSUPPORTED = {
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EACCES,
    errno.EPERM,
    errno.EBADF,
}


def replace(source: Path, target: Path) -> None:
    """`os.replace`. On Windows it waits up to two seconds for other programs, such as a virus
    scanner, that have one of the two open. Raises OSError.
    """
    until = time.monotonic() + _RETRY_SECONDS
    while True:
        try:
            return os.replace(source, target)
        except PermissionError:
            if time.monotonic() >= until:
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
    """A new file to write, which gets the name `path` when the block ends without an error.

    Makes the folder. Until then the file has a hidden name beside `path`, so no reader meets half
    a file, and after an error nothing is left behind. What a killed process left of such a file is
    removed after a day. Raises OSError (see `is_disk_full`).

    Args:
        lasting: if false, a power cut may still take the new name away: right for a cache.
        alone: no other process writes `path`, so what a killed one left of it is replaced: large
            files would else fill the disk.
        check: called with the path of the bytes on the disk before they get their name.
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
    """Removes what killed processes left of a `atomic_file`: nobody writes one for a day."""
    for left in path.parent.glob(f".{escape(path.name)}.*.partial"):
        with suppress(OSError):  # gone, or open elsewhere: a later call removes it
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Writes `data` as a `atomic_file`. Raises OSError."""
    with atomic_file(path, durable=durable) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def replace_between_markers(page: Path, name: str, text: str) -> None:
    """Replaces what lies between ``<!-- name: begin -->`` and ``<!-- name: end -->`` of a page.

    Raises ValueError for a page without both marks.
    """
    marks = [f"<!-- {name}: {edge} -->" for edge in ("begin", "end")]
    before, begin, rest = page.read_text(encoding="utf-8").partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        raise ValueError(f"{page} has not both marks {marks[0]} and {marks[1]}")
    write_atomic(page, f"{before}{begin}\n{text.strip()}\n{end}{after}")


def fsync_folder(folder: Path) -> None:
    """Makes the names in a folder safe from a power cut; where the system has no way, nothing."""
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
    """Makes a folder and those above it that are missing, each safe from a power cut."""
    if folder.is_dir():
        return
    if folder.parent != folder:  # else a drive that is not there
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_folder(folder.parent)


def move_folder(partial: Path, target: Path) -> None:
    """Gives a folder, whose files are synced, its name; what had the name goes away after."""
    fsync_folder(partial)
    aside = _trash_path(target)
    if target.exists():
        replace(target, aside)
    replace(partial, target)
    fsync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Removes a folder so that it is never seen half: its name goes first."""
    aside = _trash_path(folder)
    replace(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _trash_path(folder: Path) -> Path:
    """A hidden name beside `folder`, which is free."""
    aside = folder.with_name(f".old-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    return aside


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that the disk, or the user's share of it, is full."""
    number = getattr(error, "errno", None)
    return number in _DISK_FULL_ERRNOS or (
        number is None and bool(_DISK_FULL_MESSAGE.search(str(error)))
    )
