"""The photographs of the subject: checked, cropped and described, never modified.

The crop box and the target size are decided once, here; `load_pixels` only applies them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .captions import caption_file, read_caption
from .crops import Box, FaceDetector, bucket_for, crop_box, load_face_detector
from .digests import OnRead
from .errors import SubjectError
from .image_io import open_image, open_verified, strict_decoding, to_srgb
from .masks import attach_mask
from .photo_files import NotAnImage, abbreviate, is_image_name, list_files, note_others
from .recipe import Subject
from .recipe_parts import MAX_ENLARGE

_DECODE_THREADS = 4  # images decoded in parallel
_MUCH_HEIGHT = 0.2  # share of an upright photograph's height that the centre crop takes


@dataclass(frozen=True)
class Photo:
    """One usable photograph.

    `digest` is the SHA-256 of the file; `width` and `height` are of the upright image; `box` is
    the crop in its pixels; `size` (width, height) is what the crop is resized to; `caption` is None
    where the prompt is used; `face` says whether the box was placed by a face; `mask` is the mask's
    file (the photograph itself for its transparency), and `mask_digest` its SHA-256.
    """

    path: Path
    digest: str
    width: int
    height: int
    box: Box
    size: tuple[int, int]
    caption: str | None = None
    face: bool = False
    mask: Path | None = None
    mask_digest: str | None = None


@dataclass(frozen=True)
class RejectedFile:
    """A file that is not used: its name and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class PhotoSet:
    """The usable photographs, ordered by digest so that file names do not affect training.

    `digest` is the SHA-256 over photographs, captions and masks: the set's identity.
    """

    photos: tuple[Photo, ...]
    refused: tuple[RejectedFile, ...]
    notes: tuple[str, ...]
    digest: str


class NoUsablePhotos(SubjectError):
    """No photograph in a folder can be used; `refused` has the reason for each.

    `note` is on the other files, "" without any.
    """

    def __init__(self, folder: Path, refused: Sequence[RejectedFile], note: str = "") -> None:
        names: dict[str, list[str]] = {}
        for one in refused:
            names.setdefault(one.reason, []).append(one.name)
        lines = [f"- {abbreviate(found)}: {reason}" for reason, found in names.items()]
        lines = lines[:10] + ([f"- and {len(lines) - 10} more"] if len(lines) > 10 else [])
        head = (
            f"No photograph in {folder} can be used:"
            if refused
            else f"The folder {folder} has no photographs; add some."
        )
        super().__init__("\n".join([head, *lines, *([note] if note else [])]))
        self.refused = tuple(refused)


def read_subject(folder: Path, spec: Subject, on_read: OnRead | None = None) -> PhotoSet:
    """As `read_photos`, with a note on crops that take much from the subject's photographs."""
    found = read_photos(folder, spec, "captions are off (subject.captions)", on_read)
    hint = _note_lost_height(found.photos) if spec.crop == "center" else []
    return replace(found, notes=(*hint, *found.notes))


def _note_lost_height(photos: Sequence[Photo]) -> list[str]:
    """A note if several upright photographs lose much of their height."""
    lost = sum(
        photo.height > photo.width
        and photo.box[3] - photo.box[1] <= (1 - _MUCH_HEIGHT) * photo.height
        for photo in photos
    )
    if lost < 2:
        return []
    return [
        f"{lost} of {len(photos)} photographs are upright and lose a fifth or more of their "
        "height: the crop 'top' keeps their upper part, 'face' the largest face, and buckets keep "
        "the shape of each photograph."
    ]


def read_photos(
    folder: Path, spec: Subject, no_captions: str, on_read: OnRead | None = None
) -> PhotoSet:
    """Reads every file of `folder` (not of sub-folders) as a photograph for `spec`.

    Hidden files, captions and masks are skipped, and other files that are no images are counted in
    a note; with `spec.captions` a photograph has its caption, otherwise a note gives `no_captions`
    as the reason why it is not used. `on_read` is called with each file before it is awaited.
    Raises SubjectError if no photograph is left to train on, and MissingPackage if the detector for
    the face crop is missing.
    """
    files, notes = list_files(Path(folder))
    detect_face = load_face_detector() if spec.crop == "face" else None
    photos: dict[str, Photo] = {}
    refused: list[RejectedFile] = []
    others: list[Path] = []
    for path, found in _read_all(files, spec, detect_face, on_read):
        if isinstance(found, NotAnImage):
            others.append(path)
            continue
        if isinstance(found, SubjectError):
            refused.append(RejectedFile(path.name, str(found)))
            continue
        photo, noted = found
        if photo.digest in photos:
            same = photos[photo.digest].path.name
            refused.append(RejectedFile(path.name, f"it is a copy of {same}; remove one"))
            continue
        notes += noted
        if spec.crop == "face" and not photo.face:
            notes.append(f"{path.name}: no face was found; the crop is at the centre.")
        if spec.captions:
            caption, note = read_caption(path)
            photo, notes = replace(photo, caption=caption), notes + note
        photos[photo.digest] = photo
    if others:
        notes.append(note_others(others))
    if not photos:
        raise NoUsablePhotos(Path(folder), refused, note_others(others))
    _check_holdout(Path(folder), len(photos), spec.holdout)
    ordered = tuple(photos[digest] for digest in sorted(photos))
    if unread := 0 if spec.captions else sum(caption_file(p.path) is not None for p in ordered):
        notes.append(f"{unread} of {len(ordered)} have a caption that is not used: {no_captions}.")
    return PhotoSet(ordered, tuple(refused), tuple(notes), photo_set_digest(ordered))


def _read_all(
    files: Sequence[Path], spec: Subject, detect_face: FaceDetector | None, on_read: OnRead | None
) -> Iterator[tuple[Path, tuple[Photo, list[str]] | SubjectError]]:
    """Each file in order, with its photograph and notes or why it is rejected; decodes in
    parallel.
    """

    def read(path: Path) -> tuple[Photo, list[str]] | SubjectError:
        try:
            return read_photo(path, spec, detect_face)
        except SubjectError as error:
            return error

    def each(found: Iterator[Any]) -> Iterator[tuple[Path, Any]]:
        for path in files:
            if on_read is not None:
                on_read(path)
            yield path, next(found)

    if detect_face is not None:  # detectors are not thread-safe
        yield from each(map(read, files))
        return
    with strict_decoding(), ThreadPoolExecutor(max_workers=_DECODE_THREADS) as pool:
        try:
            yield from each(pool.map(read, files))
        finally:
            pool.shutdown(cancel_futures=True)


def _check_holdout(folder: Path, count: int, holdout: int) -> None:
    if count <= holdout:
        raise SubjectError(
            f"A holdout of {holdout} leaves none of the {count} usable photographs in {folder} to "
            f"train on; choose a holdout below {count} or add photographs."
        )


def photo_set_digest(photos: Sequence[Photo]) -> str:
    """The identity of a set of photographs, 64 hex digits: SHA-256 over each one's digest, caption
    and, if it has a mask, the mask's digest, in the given order (`PhotoSet`: by digest).

    Crops and sizes follow from these and the recipe's subject.
    """
    parts = [
        [photo.digest, photo.caption, *([photo.mask_digest] if photo.mask else [])]
        for photo in photos
    ]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


def read_photo(
    path: Path, spec: Subject, detect_face: FaceDetector | None = None
) -> tuple[Photo, list[str]]:
    """Reads one file as a photograph without a caption; returns it and notes.

    Raises SubjectError with the reason for rejecting it; NotAnImage if it is neither named like an
    image nor readable as one.
    """
    image = _open(path)
    width, height = image.size
    resolution = spec.resolution
    size = bucket_for(width, height, resolution) if spec.buckets else (resolution, resolution)
    face = detect_face(image) if detect_face is not None else None
    box = crop_box(width, height, size, face, spec.face_share, at_top=spec.crop == "top")
    enlarged = max(size[0] / (box[2] - box[0]), size[1] / (box[3] - box[1]))
    if enlarged > max(1.0, spec.enlarge):
        most = math.ceil(enlarged * 10) / 10
        raise SubjectError(
            f"it is too small: {width}x{height}, cropped to {box[2] - box[0]}x{box[3] - box[1]}, "
            f"but {size[0]}x{size[1]} is needed; use a larger image or a lower resolution"
            + (f", or set subject.enlarge to {most:g}" if most <= MAX_ENLARGE else "")
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    photo = Photo(path, digest, width, height, box, size, face=face is not None)
    photo, notes = attach_mask(photo, spec.mask, image)
    if enlarged > 1:
        notes.append(f"{path.name}: enlarged {enlarged:.2f} times; the model also learns its blur.")
    return photo, notes


def _open(path: Path) -> Image.Image:
    try:
        return open_image(path)
    except SubjectError as error:
        if is_image_name(path):
            raise
        raise NotAnImage(str(error)) from None


def load_pixels(photo: Photo, flip: bool = False) -> np.ndarray:
    """The cropped and resized photograph (H, W, 3), uint8 sRGB, mirrored if `flip`.

    Resized with PIL's antialiased Lanczos filter. Raises SubjectError if the file is missing or
    damaged, or has changed since it was checked.
    """
    image = to_srgb(open_verified(photo.path, photo.digest))
    if image.size != (photo.width, photo.height):
        raise SubjectError(f"{photo.path} is not {photo.width}x{photo.height}; remove it.")
    pixels = np.asarray(image.resize(photo.size, Image.Resampling.LANCZOS, box=photo.box))
    return np.ascontiguousarray(pixels[:, ::-1] if flip else pixels)


def split_holdout(photos: PhotoSet, count: int, seed: int) -> tuple[list[Photo], list[Photo]]:
    """Photographs to train on, and `count` held out, chosen by `seed` and the digests."""

    def rank(photo: Photo) -> str:
        return hashlib.sha256(f"{seed} {photo.digest}".encode()).hexdigest()

    held = {photo.digest for photo in sorted(photos.photos, key=rank)[:count]}
    train = [photo for photo in photos.photos if photo.digest not in held]
    return train, [photo for photo in photos.photos if photo.digest in held]
