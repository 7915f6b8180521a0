"""Image encoders for scores: the protocol, discovery of installed ones, and a cache of vectors.

An encoder is any object with the members of `Encoder`; one that also scores prompts or poses has
those of `PromptEncoder` or `PoseEncoder`. `clip`, `dino` and `face` are built in. Callers can add
finders: functions of a plan's `ImageSettings` that return an encoder, return None if it does not
apply to such images, or raise MissingEncoder. The miniature's judge in `demo/` is added this way,
because this package does not import `demo/`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..trainers.errors import SubjectError
from ..trainers.files import write_atomic
from ..trainers.image_io import open_image, to_srgb
from .errors import ComparisonError
from .matrix import ImageSettings
from .poses import Pose

Vectors = NDArray[np.float32]
Values = NDArray[np.float64]

_BATCH = 16  # images held in memory; 1 for faces, which are slow on the CPU
_MIN_SIDE_FOR_FACES = 150  # of an image, in pixels: dlib's network takes faces of 150 x 150
_DEFAULT_SETTINGS = ImageSettings()


class MissingEncoder(ComparisonError):
    """An encoder is not installed; the message is one line that says what to install, and where."""


@runtime_checkable
class Encoder(Protocol):
    """Encodes images as vectors and computes their similarity.

    `key` is a short identifier (``clip``), `name` names the weights for users, and `digest` covers
    everything that determines a vector: equal digests, equal vectors. `identity_only` means that
    the similarity compares persons only and ignores the rest of the image.
    """

    @property
    def key(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def identity_only(self) -> bool: ...

    def encode(self, images: Sequence[Image.Image]) -> Vectors:
        """Vectors (n, d) of RGB images of any size; NaN if there is nothing to encode."""
        ...

    def likeness(self, a: Vectors, b: Vectors) -> Values:
        """Similarity (n, m) of each of a (n, d) to each of b (m, d): 1 if equal, or NaN."""
        ...


@runtime_checkable
class PromptEncoder(Encoder, Protocol):
    """An encoder that also scores how well an image matches its prompt."""

    def prompt_match(self, vectors: Vectors, prompts: Sequence[str]) -> Values:
        """Match (n,) of n vectors with n prompts; NaN if unknown."""
        ...


@runtime_checkable
class PoseEncoder(Encoder, Protocol):
    """An encoder that also detects the joints of a person."""

    def pose_error(self, vectors: Vectors, poses: Sequence[Pose]) -> Values:
        """Mean distance (n,) of the detected joints from those of n poses, in image heights."""
        ...


EncoderFinder = Callable[[ImageSettings], Encoder | None]
ChooseDevice = Callable[[int], str]  # frees memory for a model of n bytes, returns its device
OnProgress = Callable[[int, int], None]


def choose_cpu(size: int) -> str:
    """A `ChooseDevice` that always returns the CPU."""
    return "cpu"


@dataclass(frozen=True)
class EncoderFiles:
    """Files of the encoders' weights; None: not given.

    `clip_image` is a file in ComfyUI's ``clip_vision`` folder or a local transformers folder of
    CLIP; `clip_text` is a file in ``text_encoders``, not needed if the former has both; `dino` is
    a transformers folder of DINOv2; `tokenizers` are folders to search for CLIP's vocabulary.
    `face` enables the face network, if its packages are installed and a plan's images have at
    least 150 pixels a side. `cache` is a folder that caches digests of large files.
    """

    clip_image: Path | None = None
    clip_text: Path | None = None
    dino: Path | None = None
    tokenizers: tuple[Path, ...] = ()
    face: bool = True
    cache: Path | None = None


def find_encoders(
    files: EncoderFiles,
    extra_finders: Sequence[EncoderFinder] = (),
    device: ChooseDevice = choose_cpu,
    settings: ImageSettings = _DEFAULT_SETTINGS,
) -> tuple[list[Encoder], list[str]]:
    """The installed encoders for images of these `settings`, and a line for each missing one.

    CLIP's and DINOv2's image encoders are loaded on first use. Raises ComparisonError, now or then,
    for a given file that cannot be used.
    """
    found: list[Encoder] = []
    missing: list[str] = []
    own = _builtin_finders(files, device, settings)
    finders: list[Callable[[], Encoder | None]] = [
        *own,
        *(partial(find, settings) for find in extra_finders),
    ]
    for find in finders:
        try:
            encoder = find()
        except MissingEncoder as error:
            missing.append(str(error))
            continue
        if encoder is not None:
            found.append(encoder)
    return found, missing


def _builtin_finders(
    files: EncoderFiles, device: ChooseDevice, settings: ImageSettings
) -> list[Callable[[], Encoder]]:
    def clip() -> Encoder:
        if files.clip_image is None:
            raise MissingEncoder(
                "CLIP is left out. In ComfyUI, put a CLIP image encoder into models/clip_vision "
                "and its text encoder into models/text_encoders; in the terminal, give a local "
                "folder of openai/clip-vit-large-patch14 with --clip."
            )
        from .clip import load_clip

        return load_clip(files, device)

    def dino() -> Encoder:
        if files.dino is None:
            raise MissingEncoder(
                "DINOv2 is left out. In ComfyUI, put a folder of facebook/dinov2-base (config.json "
                "and model.safetensors) into models/clip_vision; in the terminal, give one with "
                "--dino."
            )
        from .dino import load_dino

        return load_dino(files.dino, files.cache, device)

    def face() -> Encoder:
        from .face import load_face

        return load_face()

    faces = files.face and min(settings.width, settings.height) >= _MIN_SIDE_FOR_FACES
    return [clip, dino, face] if faces else [clip, dino]


def cosines(a: Vectors, b: Vectors) -> Values:
    """Cosine similarity (n, m) of unit vectors (n, d) and (m, d)."""
    return np.asarray(a.astype(np.float64) @ b.astype(np.float64).T)


# Files.


def encode_files(
    encoder: Encoder,
    paths: Sequence[Path],
    cache: Path | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Vectors:
    """Vectors (n, d) of image files, cached in the folder `cache` by digests of file and encoder.

    `on_progress(done, total)` is called before each batch and at the end; it may raise to stop, and
    finished vectors stay cached. Raises ComparisonError for a file that is not an image.
    """
    digests = [_digest(path) for path in paths]
    files = dict(zip(digests, paths, strict=True))
    cached = {digest: _read_cached(encoder, digest, cache) for digest in files}
    known = {digest: vector for digest, vector in cached.items() if vector is not None}
    todo = [digest for digest in files if digest not in known]
    at_once = 1 if encoder.identity_only else _BATCH
    for start in range(0, len(todo), at_once):
        on_progress(len(known), len(files))
        part = todo[start : start + at_once]
        vectors = encoder.encode([open_rgb(files[digest]) for digest in part])
        for digest, vector in zip(part, vectors, strict=True):
            known[digest] = vector
            _write_cached(encoder, digest, cache, vector)
    on_progress(len(files), len(files))
    return np.stack([known[digest] for digest in digests])


def open_rgb(path: Path) -> Image.Image:
    """An image file as RGB, with its EXIF orientation applied. Raises ComparisonError."""
    try:
        return to_srgb(open_image(path))
    except SubjectError as error:
        raise ComparisonError(f"{path} cannot be scored: {error}.") from None


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ComparisonError(f"{path} cannot be read: {error.strerror}.") from None


def _cache_path(encoder: Encoder, digest: str, cache: Path) -> Path:
    return cache / "vectors" / f"{encoder.key}-{encoder.digest[:16]}" / f"{digest}.npy"


def _read_cached(encoder: Encoder, digest: str, cache: Path | None) -> Vectors | None:
    if cache is None:
        return None
    try:
        vector = np.load(_cache_path(encoder, digest, cache), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # missing or damaged: recomputed
    return vector if vector.ndim == 1 and vector.dtype == np.float32 else None


def _write_cached(encoder: Encoder, digest: str, cache: Path | None, vector: Vectors) -> None:
    if cache is None:
        return
    data = io.BytesIO()
    np.save(data, vector.astype(np.float32), allow_pickle=False)
    with suppress(OSError):  # an unwritable cache only costs time
        write_atomic(_cache_path(encoder, digest, cache), data.getvalue())
