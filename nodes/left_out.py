"""Photographs that the user leaves out of the training: moved to a sub-folder, and back.

Training does not read sub-folders. Nothing is deleted or overwritten.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Lock

from ..trainers.captions import CAPTION_SUFFIXES
from ..trainers.errors import LikenessError
from ..trainers.files import make_folder, replace
from ..trainers.masks import MASK_SUFFIX
from ..trainers.photo_files import LEFT_OUT, is_image_name, is_sidecar
from . import miniature
from .paths import is_safe_name, safe_join
from .run_routes import PROXY_HINT, JsonResponse, same_origin

_SIDECAR_ENDINGS = (*CAPTION_SUFFIXES, MASK_SUFFIX)
_OPEN_ELSEWHERE = 32  # Windows' ERROR_SHARING_VIOLATION

_lock = Lock()  # two requests must not choose the same name


def leave_out(root: Path, params: Mapping[str, str], headers: Mapping[str, str]) -> JsonResponse:
    """Moves the photograph ``name`` of ``folder`` to its sub-folder; ``name`` there.

    Its captions and mask go with it. Same-origin requests only.
    """
    return _move(root, params, headers, back=False)


def put_back(root: Path, params: Mapping[str, str], headers: Mapping[str, str]) -> JsonResponse:
    """Moves a photograph that was left out back to ``folder``; ``name`` there.

    Same-origin requests only.
    """
    return _move(root, params, headers, back=True)


def left_out_names(root: Path, folder: str) -> list[str]:
    """The photographs that are left out of a folder, sorted; [] if they cannot be read."""
    try:
        entries = list(os.scandir(safe_join(_own_folder(root, folder), LEFT_OUT)))
    except (LikenessError, OSError):
        return []
    return sorted(entry.name for entry in entries if _is_photograph(Path(entry.path)))


def _move(
    root: Path, params: Mapping[str, str], headers: Mapping[str, str], back: bool
) -> JsonResponse:
    if not same_origin(headers):
        return 403, {"error": f"Only ComfyUI's own page may move photographs. {PROXY_HINT}"}
    try:
        folder = _own_folder(root, params.get("folder", ""))
        aside = safe_join(folder, LEFT_OUT)
        photo = _find_photo(aside if back else folder, params.get("name", ""))
    except LikenessError as error:
        return 404, {"error": str(error)}
    with _lock:
        try:
            return 200, {"name": _move_photo(photo, folder if back else aside)}
        except LikenessError as error:
            return 409, {"error": str(error)}
        finally:
            with suppress(OSError):  # it holds photographs
                aside.rmdir()


def _own_folder(root: Path, name: str) -> Path:
    """One of the user's folders. Raises LikenessError."""
    if name == miniature.SUBJECT:
        raise LikenessError("The miniature's own drawings are always trained.")
    return safe_join(root, name)


def _find_photo(folder: Path, name: str) -> Path:
    """The photograph `name` of a folder. Raises LikenessError."""
    if not is_safe_name(name):
        raise LikenessError(f"{name[:200]!r} is not a valid file name on every system: rename it.")
    path = safe_join(folder, name)
    if not _is_photograph(path):
        raise LikenessError(f"There is no photograph {name!r} in {folder}.")
    return path


def _is_photograph(path: Path) -> bool:
    """Whether a file, or a link that is broken, is neither hidden nor a photograph's sidecar."""
    hidden = path.name.startswith(".")
    return os.path.lexists(path) and not (hidden or path.is_dir() or is_sidecar(path))


def _move_photo(photo: Path, folder: Path) -> str:
    """Moves a photograph and its sidecars; returns its name in `folder`.

    If a name is taken, all of them get a number. Raises LikenessError, with all of them where they
    were.
    """
    moved: list[tuple[Path, Path]] = []
    source = photo
    try:
        make_folder(folder)
        endings = [photo.suffix, *_sidecar_endings(photo)]
        stem = _free_stem(folder, photo.stem, endings)
        for ending in endings:
            source, target = photo.with_name(photo.stem + ending), folder / (stem + ending)
            _rename(source, target)
            moved.append((source, target))
    except OSError as error:
        for before, after in reversed(moved):
            with suppress(OSError):  # the error before says more
                _rename(after, before)
        shared = Path(os.path.commonpath([photo.parent, folder]))
        raise _move_error(source, shared, error) from None
    return stem + photo.suffix


def _sidecar_endings(photo: Path) -> list[str]:
    """The endings of a photograph's sidecars; [] if another photograph shares them."""
    for other in photo.parent.iterdir():
        same = other.stem == photo.stem and is_image_name(other)
        if same and other.name != photo.name and _is_photograph(other):
            return []
    return [end for end in _SIDECAR_ENDINGS if os.path.lexists(photo.with_name(photo.stem + end))]


def _free_stem(folder: Path, stem: str, endings: Sequence[str]) -> str:
    """`stem` if no file has its name with one of these endings, else the first free "stem (1)", …

    A numbered photograph does not get another one's sidecar either.
    """

    def is_taken(stem: str, endings: Sequence[str]) -> bool:
        return any(os.path.lexists(folder / (stem + ending)) for ending in endings)

    if not is_taken(stem, endings):
        return stem
    numbered = (f"{stem} ({number})" for number in count(1))
    return next(one for one in numbered if not is_taken(one, (*endings, *_SIDECAR_ENDINGS)))


def _rename(source: Path, target: Path) -> None:
    """Renames a file. Raises OSError, also where `target` exists."""
    with open(target, "x"):  # reserves the name: renaming overwrites on most systems
        pass
    try:
        replace(source, target)
    except OSError:
        with suppress(OSError):
            target.unlink()
        raise


def _move_error(file: Path, folder: Path, error: OSError) -> LikenessError:
    """The error of a file that cannot be moved within a folder."""
    if getattr(error, "winerror", None) == _OPEN_ELSEWHERE:
        return LikenessError(f"{file.name} is open in another program: close it and try again.")
    return LikenessError(
        f"{file.name} cannot be moved: {error.strerror or error}. Give ComfyUI's user write access "
        f"to {folder}."
    )
