"""The files of a folder of photographs: which may be photographs, and which belong to one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .captions import is_caption
from .errors import SubjectError
from .image_io import image_extensions
from .masks import is_mask

LEFT_OUT = "left out"  # the sub-folder of photographs that the user left out


class NotAnImage(SubjectError):
    """A file that neither its name nor its content shows to be an image."""


def list_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The files to try, by name, and a note on sub-folders. Raises SubjectError without any."""
    if not folder.is_dir():
        raise SubjectError(f"The folder {folder} does not exist; choose the folder of photographs.")
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise SubjectError(f"The folder {folder} cannot be read: {error.strerror}.") from None
    inner = [path.name for path in entries if path.is_dir() and path.name != LEFT_OUT]
    notes = [f"Sub-folders are not read: {', '.join(inner)}."] if inner else []
    files = [path for path in entries if path.is_file() and not is_sidecar(path)]
    if not files:
        raise SubjectError(f"The folder {folder} has no photographs; add some.")
    return files, notes


def is_sidecar(path: Path) -> bool:
    """Whether a file belongs to a photograph, as its caption or its mask."""
    return is_caption(path) or is_mask(path)


def is_image_name(path: Path) -> bool:
    """Whether a file's extension is that of an image, readable or not."""
    return path.suffix.lower() in image_extensions()


def may_be_photo(path: Path) -> bool:
    """Whether a file's name allows a photograph, whose name may lack the extension."""
    hidden = path.name.startswith(".")
    return not hidden and not is_sidecar(path) and (not path.suffix or is_image_name(path))


def note_others(files: Sequence[Path]) -> str:
    """How many files are no images, and their extensions, the most frequent first; "" for none."""
    if not files:
        return ""
    kinds = Counter(path.suffix.lower() or path.name for path in files)
    number = "1 other file is" if len(files) == 1 else f"{len(files)} other files are"
    return f"{number} not used: {abbreviate([kind for kind, _ in kinds.most_common()])}."


def abbreviate(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more" if left > 0 else "")
