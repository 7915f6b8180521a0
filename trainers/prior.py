"""Class images for prior preservation: drawn by the base model once, shared by all runs.

Image i of a set depends on the set's key and on i alone, so drawing can stop at any image, go on
later, be shared out over processes, and a larger set begins with the smaller one.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from . import draws
from .errors import OutOfSpace, SubjectError
from .files import is_full, write_whole
from .recipe import Prior, Subject
from .sampler import Scheduler, Solver, decode, noise_for, sample, sigmas_for
from .subject import Photo, PhotoSet, read_subject
from .text import encode_text, tokenize

if TYPE_CHECKING:
    from .base_model import BaseModel

# DPM-Solver++(2M) with Karras' sigmas: about 25 steps do what 50 of the older solvers did
# (arXiv:2211.01095, section 7), which halves the longest wait before a first run.
SOLVER: Solver = "dpmpp_2m"
SCHEDULER: Scheduler = "karras"

_PNG_HEAD, _PNG_TAIL = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_BYTES_A_PIXEL = 2  # of a PNG of a photograph, rounded up


def prior_key(
    prior: Prior,
    prompt: str,
    base_digest: str,
    size: int,
    *,
    prediction: str = "auto",
    clip_skip: int = 1,
) -> str:
    """SHA-256 of all that decides the drawn images, 64 hex digits.

    `prompt` is the filled-in class prompt, `size` the side in pixels, `prediction` the recipe's.
    `prior.count` and `prior.weight` are no part of it.
    """
    text = json.dumps([base_digest, prediction, clip_skip, _description(prior, prompt, size)])
    return hashlib.sha256(text.encode()).hexdigest()


def prior_folder(cache: Path, key: str) -> Path:
    """Where the set of this key lies: ``class_images/<16 digits>/`` in `cache`."""
    return Path(cache) / "class_images" / key[:16]


def missing(folder: Path, count: int) -> list[int]:
    """The numbers below `count` whose image is absent or damaged.

    A PNG counts as whole when it begins and ends as one; its pixels are not decoded.
    """
    return [index for index in range(count) if not _is_whole(image_path(folder, index))]


def image_path(folder: Path, index: int) -> Path:
    """The file of image `index`: ``000000.png`` is the first."""
    return Path(folder) / f"{index:06d}.png"


def _is_whole(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(len(_PNG_HEAD))
            file.seek(-len(_PNG_TAIL), io.SEEK_END)
            return head == _PNG_HEAD and file.read() == _PNG_TAIL
    except OSError:  # also a file shorter than the tail
        return False


def draw_class_images(
    base: BaseModel,
    prior: Prior,
    prompt: str,
    folder: Path,
    *,
    device: torch.device,
    size: int,
    batch: int = 4,
    clip_skip: int = 1,
    progress: Callable[[int, int], None] | None = None,
    interrupted: Callable[[], bool] | None = None,
    ranks: tuple[int, int] = (0, 1),
) -> None:
    """Draws those of the first `prior.count` images of `size` x `size` that `folder` lacks.

    The base's parts lie on `device`. `ranks` is (rank, processes): image i belongs to rank
    i % processes. `progress(done, total)` counts this rank's images. On a GPU the UNet works in
    fp16 whatever the recipe's precision, since the set is shared; on the CPU images are drawn one
    at a time. Raises OutOfSpace, and RunCancelled when `interrupted()` is true; what is drawn
    stays.
    """
    rank, world = ranks
    todo = [index for index in missing(folder, prior.count) if index % world == rank]
    total, done = len(range(rank, prior.count, world)), 0
    tell = progress or (lambda done, total: None)
    tell(total - len(todo), total)
    if not todo:
        return
    _check_space(folder, len(todo) * size * size * _BYTES_A_PIXEL)
    _write(folder / "prompt.json", json.dumps(_description(prior, prompt, size), indent=2))
    with torch.no_grad():
        ids = tokenize(base.tokenizer, [prompt, prior.negative]).to(device)
        positive, negative = encode_text(base.text_encoder, ids, clip_skip).chunk(2)
    at_once = 1 if device.type == "cpu" else batch
    for part in _parts(todo, at_once):
        noise = noise_for([draws.derive(prior.seed, "class image", i) for i in part], size, size)
        with torch.autocast("cuda", torch.float16, enabled=device.type == "cuda"):
            latents = sample(
                base.unet,
                positive.expand(len(part), -1, -1),
                negative,
                noise,
                sigmas=sigmas_for(prior.steps, SCHEDULER),
                guidance=prior.guidance,
                solver=SOLVER,
                prediction=base.prediction,
                interrupted=interrupted,
            )
        for index, pixels in zip(part, decode(base.vae, latents), strict=True):
            _write(image_path(folder, index), _png(pixels))
        done += len(part)
        tell(total - len(todo) + done, total)


def drawn_class_images(folder: Path, count: int, size: int) -> list[Photo]:
    """The first `count` drawn images in their order, whole and unscaled.

    Raises SubjectError when one is not there.
    """
    return [_drawn(image_path(folder, index), size) for index in range(count)]


def _drawn(path: Path, size: int) -> Photo:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        raise SubjectError(f"The class image {path} is gone; start again to draw it.") from None
    return Photo(path, digest, size, size, (0, 0, size, size), (size, size))


def read_class_images(folder: Path, resolution: int) -> PhotoSet:
    """The user's own class images, cropped to squares of `resolution` at the centre.

    They are read as photographs are, and stay square where those use aspect-ratio buckets.
    Raises SubjectError.
    """
    return read_subject(folder, Subject(resolution=resolution))


def _description(prior: Prior, prompt: str, size: int) -> dict[str, Any]:
    """What is drawn and how, as `prompt.json` beside the images tells it."""
    return {
        "prompt": prompt,
        "negative": prior.negative,
        "size": size,
        "sampler": f"{SOLVER} {SCHEDULER}",
        "steps": prior.steps,
        "guidance": prior.guidance,
        "seed": prior.seed,
    }


def _parts(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _check_space(folder: Path, need: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < need:
        raise OutOfSpace(
            f"Class images in {folder} need about {need / 1e6:,.0f} MB, but {free / 1e6:,.0f} MB "
            "are free; make room, or choose fewer class images."
        )


def _write(path: Path, data: bytes | str) -> None:
    try:
        write_whole(path, data, lasting=False)
    except OSError as error:
        if not is_full(error):
            raise
        raise OutOfSpace(
            f"The disk is full at {path}; make room and start again: what is drawn stays."
        ) from None
