"""What the subject panel in the browser shows: each photograph whole and as it is trained."""

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
from ..trainers.files import write_whole
from ..trainers.masks import mask_of
from ..trainers.photo_checks import BLURRED, difference_hash, sharpness, twin_of
from ..trainers.pictures import open_picture, to_srgb
from ..trainers.recipe import Subject
from ..trainers.subject import Photo, is_beside, load_pixels, read_subject
from .encode import webp
from .names import listing_fingerprint, unreadable

WHOLE_SIDE = 640
DARK = 0.3
MOST = 300  # photographs that are shown; any number is trained
FOLDER = "likeness"  # below ComfyUI's folder of temporary files
KEPT = 16  # views of folders
ANSWER_SECONDS = 0.5
PATIENCE_SECONDS = 4.0  # after which nobody is waiting

View = dict[str, Any]


class NotAwaited(Exception):
    """Nobody asks for the folder any more."""


@dataclass
class _Reading:
    """A folder that is read or was, and when it was last asked for."""

    asked: float
    future: Future[View] = field(init=False)


class PhotoViews:
    """Reads the folders of subject panels, one at a time in a thread of its own.

    ComfyUI answers everything in one small pool of threads, which must not wait for photographs: an
    answer that takes longer is asked for again. What is no longer asked for is not read to its end,
    and an unchanged folder is not read again.

    Args:
        seconds: that one answer may take.
        clock: seconds, as `time.monotonic`.
    """

    def __init__(
        self, seconds: float = ANSWER_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="likeness-photos")
        self._readings: OrderedDict[Any, _Reading] = OrderedDict()
        self._lock = Lock()

    def view(self, folder: Path, spec: Subject, temp: Path) -> View | None:
        """What `photo_view` gives; None while it is read.

        Raises as `photo_view` does, SubjectError for more than MOST files, and LikenessError for
        a folder that cannot be read.
        """
        _check_count(folder)
        key = (folder, spec, temp, listing_fingerprint(folder))
        with self._lock:
            reading = self._readings.get(key) or self._start(key)
            reading.asked = self._clock()
            self._readings.move_to_end(key)
        wait([reading.future], timeout=self._seconds)
        if not reading.future.done():
            return None
        if error := reading.future.exception():
            with self._lock:  # it may go better the next time
                if self._readings.get(key) is reading:
                    del self._readings[key]
            if isinstance(error, NotAwaited):
                return None
        return reading.future.result()

    def _start(self, key: Any) -> _Reading:
        folder, spec, temp, _ = key
        reading = self._readings[key] = _Reading(self._clock())

        def is_awaited() -> bool:
            return self._clock() - reading.asked < PATIENCE_SECONDS

        reading.future = self._pool.submit(photo_view, folder, spec, temp, is_awaited)
        while len(self._readings) > KEPT:
            self._readings.popitem(last=False)
        return reading


def _check_count(folder: Path) -> None:
    try:
        files = folder.iterdir() if folder.is_dir() else ()
        count = sum(not is_beside(path) for path in files)
    except OSError as error:
        raise unreadable(folder, error) from None
    if count > MOST:
        raise SubjectError(
            f"The folder has {count:,} files, and at most {MOST} are shown here. All are read when "
            "the workflow is queued."
        )


def photo_view(
    folder: Path, spec: Subject, temp: Path, is_awaited: Callable[[], bool] = lambda: True
) -> View:
    """JSON of the photographs that a subject node would give, with their marks.

    Their pictures are written below `temp`. Raises SubjectError as `read_subject` does, and
    NotAwaited.
    """
    _check_awaited(is_awaited)
    photos = read_subject(folder, spec)
    looks = []
    for photo in photos.photos:
        _check_awaited(is_awaited)
        looks.append(_looked_at(photo, temp))
    twins = twin_of([print_ for _, print_ in looks])
    names = [photo.path.name for photo in photos.photos]
    return {
        "photos": [
            _card(photo, sharp < BLURRED, None if twin is None else names[twin])
            for photo, (sharp, _), twin in zip(photos.photos, looks, twins, strict=True)
        ],
        "refused": [{"name": one.name, "reason": one.reason} for one in photos.refused],
        "notes": list(photos.notes),
    }


def _check_awaited(is_awaited: Callable[[], bool]) -> None:
    if not is_awaited():
        raise NotAwaited


def _card(photo: Photo, blurred: bool, twin: str | None) -> dict[str, Any]:
    return {
        "name": photo.path.name,
        "width": photo.width,
        "height": photo.height,
        "box": photo.box,
        "size": photo.size,
        "caption": photo.caption,
        "face": photo.face,
        "whole": f"{_stem(photo)}-whole.webp",
        "crop": f"{_stem(photo)}-crop.webp",
        "blurred": blurred,
        "twin": twin,
    }


def _stem(photo: Photo) -> str:
    """Names the pictures of a photograph by all that decides them."""
    content = repr((photo.digest, photo.box, photo.size, photo.mask_digest))
    return hashlib.sha256(content.encode()).hexdigest()[:24]


@lru_cache(maxsize=2000)
def _looked_at(photo: Photo, temp: Path) -> tuple[float, np.ndarray]:
    """Sharpness and difference hash as it is trained; writes its two pictures."""
    pixels = load_pixels(photo)
    whole = to_srgb(open_picture(photo.path))
    whole.thumbnail((WHOLE_SIDE, WHOLE_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    if (mask := mask_of(photo)) is not None:  # what counts little is dark, as what is cut off
        dark = whole.point(lambda value: round(value * DARK))
        whole = Image.composite(whole, dark, mask.resize(whole.size))
    for name, image in (("whole", whole), ("crop", Image.fromarray(pixels))):
        write_whole(temp / FOLDER / f"{_stem(photo)}-{name}.webp", webp(image), lasting=False)
    return sharpness(pixels), difference_hash(pixels)
