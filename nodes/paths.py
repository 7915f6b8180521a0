"""Names that come from a workflow, and the files they may mean."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from ..trainers.errors import LikenessError
from ..trainers.image_io import image_extensions

# What some file system takes for a drive or a stream, refuses, or drops at a name's end.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f:*?\"<>|]|[. ]$|^ ")
_RESERVED_NAMES = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE
)
_SEPARATORS = frozenset("/\\∕⁄／⧸＼﹨∖⧵⧹")  # and what looks like one
_JOINERS = "\u200c\u200d"  # of the letters of a word, in some scripts
_MAX_NAME_BYTES = 255  # bytes, on most file systems
_MAX_DEPTH = 16


def safe_join(root: Path, name: str) -> Path:
    """The path of `name` below `root`, where it stays even through symbolic links.

    The same names are good on every system. Raises LikenessError for an empty name, ``..``, an
    absolute path, a drive letter, an NTFS stream, a Windows device, letters that look like a
    separator or become one, an overlong name, or a link that leads out.
    """
    parts = re.split(r"[/\\]", name)
    if len(parts) > _MAX_DEPTH or not all(map(is_safe_name, parts)):
        raise LikenessError(
            f"{name[:200]!r} is not a folder's name: give one below {root}, such as 'anna' or "
            "'people/anna', without '..', a drive letter or a leading slash."
        )
    path = root.joinpath(*parts)
    try:
        within = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a loop of links
        within = False
    if not within:
        raise LikenessError(f"{name!r} leads out of {root}: put the files themselves there.")
    return path


def is_safe_name(part: str) -> bool:
    """Whether it is one name of a file or folder, on every system and nothing else.

    Compared also in the compatibility form NFKC, to which some systems and programs convert:
    there ‥ is two dots, and ／ a slash. Letters that are not seen are refused.
    """
    if not part or len(part.encode("utf-8", "surrogatepass")) > _MAX_NAME_BYTES:
        return False
    if _FORBIDDEN.search(part) or any(_is_invisible(letter) for letter in part):
        return False
    return not any(
        form.strip(". ") == "" or _RESERVED_NAMES.match(form) or _SEPARATORS & set(form)
        for form in (part, unicodedata.normalize("NFKC", part))
    )


def _is_invisible(letter: str) -> bool:
    """Half of a pair, a change of direction, a mark of no width, the end of a line."""
    kind = unicodedata.category(letter)
    return kind in ("Cs", "Zl", "Zp") or (kind == "Cf" and letter not in _JOINERS)


def photo_folder(root: Path, name: str) -> Path:
    """As `safe_join`, for a folder that has a file. Raises LikenessError."""
    path = safe_join(root, name)
    try:
        if not path.is_dir():
            raise LikenessError(
                f"There is no folder {name!r} in {root}: make it and put the photographs into it."
            )
        if not any(entry.is_file() for entry in path.iterdir()):
            raise LikenessError(f"The folder {name!r} has no photographs; put some into it.")
    except OSError as error:
        raise unreadable_error(path, error) from None
    return path


def unreadable_error(folder: Path, error: OSError) -> LikenessError:
    """The error of a folder that cannot be read."""
    return LikenessError(
        f"The folder {folder} cannot be read: {error.strerror or error}. Let ComfyUI's user read "
        "it, or choose another."
    )


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


def picture_folders(root: Path) -> list[str]:
    """Those of `subfolders` that hold a picture themselves: core makes others there, too."""
    return [name for name in subfolders(root) if _has_picture(root / name)]


def _has_picture(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(Path(entry.name).suffix.lower() in image_extensions() for entry in entries)
    except OSError:
        return False


def folder_fingerprint(folder: Path) -> str:
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
