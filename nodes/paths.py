"""File and folder names from a workflow, kept inside their root folders."""

from __future__ import annotations

import os
import re
import time
import unicodedata
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from ..trainers.errors import LikenessError
from ..trainers.image_io import image_extensions
from ..trainers.photo_files import LEFT_OUT

# What some file system reads as a drive or a stream, rejects, or strips from a name's end.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f:*?\"<>|]|[. ]$|^ ")
_RESERVED_NAMES = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE
)
_SEPARATORS = frozenset("/\\∕⁄／⧸＼﹨∖⧵⧹")  # and look-alikes
_JOINERS = "\u200c\u200d"  # join letters of a word in some scripts
_MAX_NAME_BYTES = 255  # on most file systems
_MAX_DEPTH = 16
_LEVELS = 4  # of listed folders, such as kohya's anna/img/10_sks man
_SCAN_SECONDS = 0.3
_MAX_ENTRIES = 10_000  # looked at in a folder below the first level


def normalised_name(name: str) -> str:
    """Equal for names that a case-insensitive or normalising file system takes for the same."""
    return unicodedata.normalize("NFC", name).lower()


def safe_join(root: Path, name: str) -> Path:
    """The path of `name` below `root`, which symbolic links cannot leave either.

    The same names are valid on every system. Raises LikenessError for an empty name, ``..``, an
    absolute path, a drive letter, an NTFS stream, a Windows device, characters that look like or
    normalise to a separator, an overlong name, or a link that leads out.
    """
    parts = re.split(r"[/\\]", name)
    if len(parts) > _MAX_DEPTH or not all(map(is_safe_name, parts)):
        raise LikenessError(
            f"{name[:200]!r} is not a valid folder name: enter one below {root}, such as 'anna' or "
            "'people/anna', without '..', a drive letter or a leading slash."
        )
    path = root.joinpath(*parts)
    try:
        within = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a symlink loop
        within = False
    if not within:
        raise LikenessError(
            f"{name!r} leads out of {root} through a link: put the files themselves there."
        )
    return path


def is_safe_name(part: str) -> bool:
    """Whether `part` is a single valid file or folder name on every system.

    Also checked in NFKC, to which some systems and programs convert: there ‥ becomes two dots and
    ／ a slash. Invisible characters are refused.
    """
    if not part or len(part.encode("utf-8", "surrogatepass")) > _MAX_NAME_BYTES:
        return False
    if _FORBIDDEN.search(part) or any(map(_is_invisible, part)):
        return False
    return not any(
        form.strip(". ") == "" or _RESERVED_NAMES.match(form) or _SEPARATORS & set(form)
        for form in (part, unicodedata.normalize("NFKC", part))
    )


def _is_invisible(character: str) -> bool:
    """Whether a character is a surrogate, a zero-width or direction mark, or a line end."""
    kind = unicodedata.category(character)
    return kind in ("Cs", "Zl", "Zp") or (kind == "Cf" and character not in _JOINERS)


def photo_folder(root: Path, name: str) -> Path:
    """As `safe_join`, for a folder that contains a file. Raises LikenessError."""
    path = safe_join(root, name)
    try:
        if not path.is_dir():
            raise LikenessError(
                f"There is no folder {name!r} in {root}: create it and put the photographs into it."
            )
        if not any(entry.is_file() for entry in path.iterdir()):
            raise LikenessError(f"The folder {name!r} has no photographs: put some into it.")
    except OSError as error:
        raise unreadable_error(path, error) from None
    return path


def unreadable_error(folder: Path, error: OSError) -> LikenessError:
    """The error of a folder that cannot be read."""
    return LikenessError(
        f"The folder {folder} cannot be read: {error.strerror or error}. Give ComfyUI's user read "
        "access, or choose another folder."
    )


def image_folders(root: Path, clock: Callable[[], float] = time.monotonic) -> list[str]:
    """Names, with ``/``, of the folders below `root` that directly contain an image: core creates
    other folders there, too. No links and no hidden ones.

    To _LEVELS levels; those below the second only as far as _SCAN_SECONDS allow, as ComfyUI builds
    all its lists while the browser waits. `clock`: seconds.
    """
    end = clock() + _SCAN_SECONDS
    names: list[str] = []
    level = _scan(root, None)[0]
    for depth in range(1, _LEVELS + 1):
        below: list[str] = []
        for name in level:
            if depth > 2 and clock() > end:
                break
            inner, has_image = _scan(root / name, None if depth == 1 else _MAX_ENTRIES)
            names += [name] if has_image else []
            below += [f"{name}/{one}" for one in inner]
        level = below
    return sorted(names, key=lambda name: name.lower().split("/"))


def _scan(folder: Path, most: int | None) -> tuple[list[str], bool]:
    """The names of a folder's sub-folders, and whether it has an image, from `most` of its entries
    (None: all); none if unreadable.

    Images that were left out count, so that they can be put back; their folder is not named.
    """
    known = image_extensions()
    inner, has_image = [], False
    try:
        with os.scandir(folder) as entries:
            for entry in islice(entries, most):
                if entry.name == LEFT_OUT and entry.is_dir(follow_symlinks=False):
                    has_image = has_image or _scan(Path(entry.path), most)[1]
                elif entry.is_dir(follow_symlinks=False):
                    inner += [] if entry.name.startswith(".") else [entry.name]
                elif not has_image:
                    has_image = os.path.splitext(entry.name)[1].lower() in known
    except OSError:
        return [], False
    return sorted(inner, key=str.lower), has_image


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
