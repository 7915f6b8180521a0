"""Drawn class images on disk: one PNG per number, shared by all runs that use the set.

An existing image is never overwritten, because another run may have read it; only damaged ones
are removed, before a run looks for missing ones.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import OutOfSpace, SubjectError
from .files import is_disk_full, write_atomic
from .image_io import png
from .subject import Photo

_PNG_HEAD, _PNG_TAIL = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_BYTES_PER_PIXEL = 2  # of a photographic PNG, rounded up
_THREADS = 4


def image_path(folder: Path, index: int) -> Path:
    """File of image `index`; the first is ``000000.png``."""
    return Path(folder) / f"{index:06d}.png"


def missing(folder: Path, numbers: Iterable[int]) -> list[int]:
    """Numbers whose image is missing or truncated.

    Checks only a file's first and last bytes; `remove_damaged` reads all of it.
    """
    return [index for index in numbers if not is_complete_png(image_path(folder, index))]


def is_complete_png(path: Path) -> bool:
    """Whether a file begins and ends like a PNG."""
    try:
        with open(path, "rb") as file:
            head = file.read(len(_PNG_HEAD))
            file.seek(-len(_PNG_TAIL), io.SEEK_END)
            return head == _PNG_HEAD and file.read() == _PNG_TAIL
    except OSError:  # also a file shorter than the tail
        return False


def remove_damaged(folder: Path, numbers: Iterable[int]) -> int:
    """Removes images that are damaged anywhere; returns how many.

    Takes about as long as the digests of `list_class_images`, which also reads the files.
    Raises SubjectError for one that cannot be removed.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return sum(pool.map(_remove_if_damaged, (image_path(folder, index) for index in numbers)))


def _remove_if_damaged(path: Path) -> bool:
    """Removes a damaged file, immediately: later another run may have redrawn it."""
    try:
        sound = _has_valid_crcs(path.read_bytes())
    except (FileNotFoundError, PermissionError):  # the latter on Windows while it is being written
        return False
    except OSError:  # a disk fault
        sound = False
    if sound:
        return False
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SubjectError(
            f"The class image {path} is damaged and cannot be deleted ({error.strerror}). Delete "
            "it yourself; it is then generated again."
        ) from None
    return True


def _has_valid_crcs(data: bytes) -> bool:
    """Whether each chunk of a PNG matches its CRC-32 (PNG specification, third edition, 5.3)."""
    if not data.startswith(_PNG_HEAD) or not data.endswith(_PNG_TAIL):
        return False
    view, start = memoryview(data), len(_PNG_HEAD)
    while start < len(data):  # each has a length, type, data and CRC
        end = start + 8 + int.from_bytes(view[start : start + 4], "big")
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return False
        start = end + 4
    return True


def list_class_images(folder: Path, numbers: Iterable[int], size: int) -> list[Photo]:
    """The drawn images of these numbers, in order, uncropped and unscaled.

    Raises SubjectError if one is missing.
    """
    return [_read_photo(image_path(folder, index), size) for index in numbers]


def _read_photo(path: Path, size: int) -> Photo:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        raise SubjectError(
            f"The class image {path} is missing; start again to generate it."
        ) from None
    return Photo(path, digest, size, size, (0, 0, size, size), (size, size))


class ClassImageWriter:
    """Writes missing images, with `in_background` while the next ones are drawn."""

    def __init__(self, *, in_background: bool) -> None:
        self._in_background = in_background
        self._pool = ThreadPoolExecutor(_THREADS)
        self._pending: list[Future[None]] = []

    def __enter__(self) -> ClassImageWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown()
        if kind is None:
            self._wait_for_pending()

    def write(self, folder: Path, indices: Sequence[int], images: np.ndarray) -> None:
        """Writes images (n, H, W, 3), uint8. Raises OutOfSpace, also for earlier calls."""
        self._wait_for_pending()
        self._pending = [
            self._pool.submit(_write_missing, image_path(folder, index), image)
            for index, image in zip(indices, images, strict=True)
        ]
        if not self._in_background:
            self._wait_for_pending()

    def _wait_for_pending(self) -> None:
        pending, self._pending = self._pending, []
        for one in pending:
            one.result()


def _write_missing(path: Path, image: np.ndarray) -> None:
    if not is_complete_png(path):
        write(path, png(Image.fromarray(image)))


def write(path: Path, data: bytes | str) -> None:
    """Writes a file of a set atomically. Raises OutOfSpace."""
    try:
        write_atomic(path, data, durable=False)
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise OutOfSpace(
            f"The disk is full at {path}. Free some space and start again: images generated so far "
            "are kept."
        ) from None


def check_disk_space(folder: Path, count: int, size: int) -> None:
    """Raises OutOfSpace if `count` images of `size` x `size` pixels do not fit.

    Creates the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    need, free = count * size * size * _BYTES_PER_PIXEL, shutil.disk_usage(folder).free
    if free < need:
        raise OutOfSpace(
            f"Class images in {folder} need about {need / 1e6:,.0f} MB, but {free / 1e6:,.0f} MB "
            "are free. Free some space, or choose fewer class images."
        )
