"""Every change of a file in a process, seen before it happens; and what a power cut makes of it.

Python's audit hooks tell of opening, renaming and removing; `os.fsync` is wrapped, because what
is not synced may be lost. What is written through other libraries shows as files that no fsync
has covered.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


@contextmanager
def watched(tree: Path, before: Callable[[str, tuple[Any, ...]], None]) -> Iterator[None]:
    """Calls `before(operation, arguments)` ahead of each change below `tree`.

    For a process that ends soon: audit hooks cannot be taken away.
    """
    root, sync = str(tree), os.fsync

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
            if writes and isinstance(path, str) and path.startswith(root):
                before("open", (path,))
        elif event in _CHANGES:
            paths = tuple(_absolute(path, arguments) for path in _paths(event, arguments))
            if paths[0].startswith(root):
                before(event.removeprefix("os."), paths)

    def fsync(handle: int) -> None:
        before("sync", (handle,))
        sync(handle)

    os.fsync = fsync
    sys.addaudithook(hook)
    yield


def _paths(event: str, arguments: tuple[Any, ...]) -> list[Any]:
    return list(arguments[:2] if event == "os.rename" else arguments[:1])


def _absolute(path: Any, arguments: tuple[Any, ...]) -> str:
    text = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
    folder = arguments[-1]
    if not os.path.isabs(text) and isinstance(folder, int) and folder >= 0:
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)
    return os.path.abspath(text)


class KillAt:
    """Kills its own process ahead of the operation of a number, from 0; counts without one."""

    def __init__(self, number: int | None = None) -> None:
        self.count = 0
        self._number = number

    def __call__(self, operation: str, arguments: tuple[Any, ...]) -> None:
        if self.count == self._number:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1


class Journal:
    """Notes syncs, renames and new folders in a file outside the tree, for `cut_power`."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._kept = path.with_name(f"{path.name}.kept")
        self._kept.mkdir(exist_ok=True)
        self._count = 0

    def __call__(self, operation: str, arguments: tuple[Any, ...]) -> None:
        if operation == "sync":
            told = os.fstat(arguments[0])
            path = os.readlink(f"/proc/self/fd/{arguments[0]}")
            if stat.S_ISDIR(told.st_mode):
                self._note("names", path)
            else:
                self._note("bytes", [told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns])
        elif operation == "mkdir" and not os.path.isdir(arguments[0]):
            self._note("mkdir", arguments[0])
        elif operation == "rename":
            source, target = arguments
            self._count += 1
            kept = self._kept / f"{os.getpid()}-{self._count}"
            if os.path.isfile(target):
                os.link(target, kept)
            self._note("rename", [source, target, str(kept)])

    def _note(self, kind: str, value: Any) -> None:
        os.write(self._file, json.dumps([kind, value]).encode() + b"\n")


@dataclass
class _Known:
    synced: set[tuple[int, ...]] = field(default_factory=set)
    unsynced: dict[str, list[tuple[str, Any]]] = field(default_factory=dict)  # by folder


def cut_power(tree: Path, journal: Path, chance: random.Random) -> int:
    """Makes of the tree what a power cut may leave; returns how many files and names it took.

    Bytes that were not synced become zeros, noise, nothing or a part. Names that were not synced
    go back, the last first, a random number of them in each folder.
    """
    known, harmed = _read(journal), 0
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink() and _key(path) not in known.synced:
            harmed += _spoil(path, chance)
    for changes in known.unsynced.values():
        for kind, value in list(reversed(changes))[: chance.randint(0, len(changes))]:
            harmed += _undo(kind, value)
    return harmed


def _read(journal: Path) -> _Known:
    known = _Known()
    for line in journal.read_text().splitlines():
        kind, value = json.loads(line)
        if kind == "bytes":
            known.synced.add(tuple(value))
        elif kind == "names":
            known.unsynced.pop(value, None)
        else:
            path = value if kind == "mkdir" else value[1]
            known.unsynced.setdefault(os.path.dirname(path), []).append((kind, value))
    return known


def _key(path: Path) -> tuple[int, ...]:
    told = path.stat()
    return told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns


def _spoil(path: Path, chance: random.Random) -> int:
    data = path.read_bytes()
    if not data:
        return 0
    part = chance.randrange(len(data))
    spoilt = (b"", data[:part], bytes(len(data)), data[:part] + chance.randbytes(len(data) - part))
    path.write_bytes(chance.choice(spoilt))
    return 1


def _undo(kind: str, value: Any) -> int:
    if kind == "mkdir":
        if not os.path.isdir(value):
            return 0
        shutil.rmtree(value)
        return 1
    source, target, kept = value
    if not os.path.exists(target) or os.path.exists(source):
        return 0
    os.rename(target, source)
    if os.path.isfile(kept):
        os.link(kept, target)
    return 1
