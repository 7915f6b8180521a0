"""Names that come from a workflow, and the files they may mean."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..trainers.errors import LikenessError


def inside(root: Path, name: str) -> Path:
    """The path of `name` below `root`, where it stays even through symbolic links.

    Raises LikenessError for an empty name, ``..``, an absolute path, a drive letter, an NTFS
    stream, or a link that leads out.
    """
    parts = re.split(r"[/\\]", name)
    if (
        not name.strip()
        or not all(parts)
        or {".", ".."} & set(parts)
        or re.search(r"[:\x00]", name)
    ):
        raise LikenessError(
            f"{name!r} is not a folder's name: give one below {root}, such as 'anna' or "
            "'people/anna', without '..', a drive letter or a leading slash."
        )
    path = root.joinpath(*parts)
    if not path.resolve().is_relative_to(root.resolve()):
        raise LikenessError(f"{name!r} leads out of {root}: put the files themselves there.")
    return path


def folder_inside(root: Path, name: str) -> Path:
    """As `inside`, for a folder that exists. Raises LikenessError."""
    path = inside(root, name)
    if not path.is_dir():
        raise LikenessError(
            f"There is no folder {name!r} in {root}: make it and put the photographs into it."
        )
    return path


def photo_folder(root: Path, name: str) -> Path:
    """As `folder_inside`, for a folder with at least one file. Raises LikenessError."""
    path = folder_inside(root, name)
    if not any(entry.is_file() for entry in path.iterdir()):
        raise LikenessError(f"The folder {name!r} has no photographs; put some into it.")
    return path


def subfolders(root: Path, depth: int = 2) -> list[str]:
    """Names of the folders below `root`, with ``/``, down to `depth`; links and hidden ones not."""
    names = []
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name.lower())
    except OSError:
        return []
    for entry in entries:
        if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
            continue
        names.append(entry.name)
        if depth > 1:
            names += [f"{entry.name}/{name}" for name in subfolders(Path(entry.path), depth - 1)]
    return names


def listing_fingerprint(folder: Path) -> str:
    """Changes when a file of the folder is added, removed or written: names, sizes, times."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        return repr(
            [(e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in entries if e.is_file()]
        )
    except OSError as error:
        return f"{type(error).__name__}: {folder}"


def file_fingerprint(path: Path) -> str:
    """Changes when the file is replaced: its size and time."""
    try:
        stat = path.stat()
    except OSError as error:
        return f"{type(error).__name__}: {path}"
    return f"{stat.st_size} {stat.st_mtime_ns}"
