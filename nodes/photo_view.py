"""What the subject panel in the browser shows: each photograph, whole and as trained."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from ..trainers.errors import SubjectError
from ..trainers.files import write_atomic
from ..trainers.image_io import open_image, to_srgb
from ..trainers.masks import open_mask
from ..trainers.photo_checks import BLUR_THRESHOLD, difference_hash, find_near_duplicates, sharpness
from ..trainers.photo_files import may_be_photo
from ..trainers.recipe import Subject
from ..trainers.subject import Photo, load_pixels, read_subject
from .encode import encode_webp
from .paths import folder_fingerprint, unreadable_error

WHOLE_SIDE = 640
DIM_FACTOR = 0.3
MAX_PHOTOS = 300  # in the panel only; training has no limit
TEMP_SUBFOLDER = "likeness"  # below ComfyUI's temp folder
MAX_CACHED_FOLDERS = 16
RESPONSE_TIMEOUT_SECONDS = 0.5
ABANDON_SECONDS = 4.0  # without a new request, the panel no longer waits

View = dict[str, Any]


class RequestAbandoned(Exception):
    """The panel no longer requests the folder."""


@dataclass
class _ReadTask:
    """The reading of a folder, running or done, and the time of the last request."""

    requested_at: float
    future: Future[View] = field(init=False)


class PhotoViews:
    """Reads the folders of subject panels, one at a time, in a separate thread.

    ComfyUI's requests share a small thread pool, which must not block on photographs: if reading
    takes longer than `seconds`, the panel polls. Reading stops if the panel stops asking, and an
    unchanged folder is not read again.

    Args:
        seconds: how long one request may wait.
        clock: seconds, as `time.monotonic`.
    """

    def __init__(
        self, seconds: float = RESPONSE_TIMEOUT_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="likeness-photos")
        self._tasks: OrderedDict[Any, _ReadTask] = OrderedDict()
        self._lock = Lock()

    def view(self, folder: Path, spec: Subject, temp: Path) -> View | None:
        """The result of `photo_view`; None while the folder is being read or changed.

        Raises as `photo_view` does, SubjectError for more than MAX_PHOTOS photographs, and
        LikenessError for a folder that cannot be read.
        """
        _check_count(folder)
        key = (folder, spec, temp, folder_fingerprint(folder))
        with self._lock:
            task = self._tasks.get(key) or self._start(key)
            task.requested_at = self._clock()
            self._tasks.move_to_end(key)
        wait([task.future], timeout=self._seconds)
        if not task.future.done():
            return None
        if error := task.future.exception():
            with self._lock:  # retry on the next request
                if self._tasks.get(key) is task:
                    del self._tasks[key]
            # A file that is gone was moved while the folder was read.
            if isinstance(error, RequestAbandoned | FileNotFoundError):
                return None
        return task.future.result()

    def _start(self, key: Any) -> _ReadTask:
        folder, spec, temp, _ = key
        task = self._tasks[key] = _ReadTask(self._clock())

        def is_awaited() -> bool:
            return self._clock() - task.requested_at < ABANDON_SECONDS

        task.future = self._pool.submit(photo_view, folder, spec, temp, is_awaited)
        while len(self._tasks) > MAX_CACHED_FOLDERS:
            self._tasks.popitem(last=False)
        return task


def _check_count(folder: Path) -> None:
    try:
        files = folder.iterdir() if folder.is_dir() else ()
        count = sum(path.is_file() and may_be_photo(path) for path in files)
    except OSError as error:
        raise unreadable_error(folder, error) from None
    if count > MAX_PHOTOS:
        raise SubjectError(
            f"The folder has {count:,} photographs; at most {MAX_PHOTOS} can be shown here. "
            "All are read when the workflow is queued."
        )


def photo_view(
    folder: Path, spec: Subject, temp: Path, is_awaited: Callable[[], bool] = lambda: True
) -> View:
    """The photographs that a Subject node would use, as JSON data, with blur and duplicate marks.

    Writes their images below `temp`. Raises SubjectError as `read_subject` does, and
    RequestAbandoned.
    """
    _check_awaited(is_awaited)
    photos = read_subject(folder, spec)
    analyses = []
    for photo in photos.photos:
        _check_awaited(is_awaited)
        analyses.append(_analyse(photo, temp))
    twins = find_near_duplicates([image_hash for _, image_hash in analyses])
    names = [photo.path.name for photo in photos.photos]
    return {
        "photos": [
            _photo_data(photo, sharp < BLUR_THRESHOLD, None if twin is None else names[twin])
            for photo, (sharp, _), twin in zip(photos.photos, analyses, twins, strict=True)
        ],
        "refused": [{"name": one.name, "reason": one.reason} for one in photos.refused],
        "notes": list(photos.notes),
    }


def _check_awaited(is_awaited: Callable[[], bool]) -> None:
    if not is_awaited():
        raise RequestAbandoned


def _photo_data(photo: Photo, blurred: bool, twin: str | None) -> dict[str, Any]:
    return {
        "name": photo.path.name,
        "width": photo.width,
        "height": photo.height,
        "box": photo.box,
        "size": photo.size,
        "caption": photo.caption,
        "face": photo.face,
        "whole": f"{_file_stem(photo)}-whole.webp",
        "crop": f"{_file_stem(photo)}-crop.webp",
        "blurred": blurred,
        "twin": twin,
    }


def _file_stem(photo: Photo) -> str:
    """The stem of a photograph's image files: a hash of everything they depend on."""
    content = repr((photo.digest, photo.box, photo.size, photo.mask_digest))
    return hashlib.sha256(content.encode()).hexdigest()[:24]


@lru_cache(maxsize=2000)
def _analyse(photo: Photo, temp: Path) -> tuple[float, np.ndarray]:
    """Sharpness and difference hash of the trained crop; writes the two images."""
    pixels = load_pixels(photo)
    whole = to_srgb(open_image(photo.path))
    whole.thumbnail((WHOLE_SIDE, WHOLE_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    if (mask := open_mask(photo)) is not None:  # darken what counts less, like what is cropped off
        dark = whole.point(lambda value: round(value * DIM_FACTOR))
        whole = Image.composite(whole, dark, mask.resize(whole.size))
    for name, image in (("whole", whole), ("crop", Image.fromarray(pixels))):
        write_atomic(
            temp / TEMP_SUBFOLDER / f"{_file_stem(photo)}-{name}.webp",
            encode_webp(image),
            durable=False,
        )
    return sharpness(pixels), difference_hash(pixels)
