"""Class images for prior preservation: drawn by the base model once, shared by all runs.

Image i of a set depends on the set's key and on i alone, but for the rounding of the device and
precision of the run that was first to need it. So drawing can stop at any image, go on later, be
shared out over processes, and a larger set begins with the smaller one. An image that is there is
never written again: another run may have read it.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import draws
from .errors import OutOfSpace, RunFailed, SubjectError
from .files import is_full, write_whole
from .graphs import recorded_unet
from .memory import is_out_of_memory
from .recipe import Prior
from .sampler import Scheduler, Solver, decode, noise_for, sample, sigmas_for
from .subject import Photo
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
    prompts: Sequence[str],
    base_digest: str,
    size: int,
    *,
    prediction: str = "auto",
    clip_skip: int = 1,
) -> str:
    """SHA-256 of all that decides the drawn images, 64 hex digits.

    `prompts` are filled in, `size` is the side in pixels, `prediction` the recipe's.
    `prior.count` and `prior.weight` are no part of it.
    """
    text = json.dumps([base_digest, prediction, clip_skip, _description(prior, prompts, size)])
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
    prompts: Sequence[str],
    folder: Path,
    *,
    device: torch.device,
    size: int,
    batch: int | None = None,
    clip_skip: int = 1,
    progress: Callable[[int, int], None] | None = None,
    interrupted: Callable[[], bool] | None = None,
    notice: Callable[[str], None] | None = None,
    graphs: bool = True,
    ranks: tuple[int, int] = (0, 1),
    backwards: bool = False,
) -> None:
    """Draws those of the first `prior.count` images of `size` x `size` that `folder` lacks.

    Image i shows prompt i modulo their number. The base's parts lie on `device`. `ranks` is
    (rank, processes): rank k takes each image, on a CPU each block, whose number is k modulo
    processes, the last ones first if `backwards`. `progress(done, total)` counts this rank's
    images. On a GPU the UNet works in fp16 whatever the recipe's precision, since the set is
    shared, `batch` images at a time (None: as many as the memory allows) and half as many where it
    does not, with `graphs` in CUDA graphs; `notice(text)` says that its steps could not be
    recorded. On the CPU small images are drawn in blocks of a fixed size, a block by one rank, so
    that rounding is the same however drawing is parted. Raises OutOfSpace, and RunCancelled when
    `interrupted()` is true; what is drawn stays.
    """
    rank, world = ranks
    cuda = device.type == "cuda"
    block = 1 if cuda else _block(size)
    todo = [index for index in missing(folder, prior.count) if index // block % world == rank]
    if backwards:
        todo.reverse()
    total = sum(index // block % world == rank for index in range(prior.count))
    tell = progress or (lambda done, total: None)
    tell(total - len(todo), total)
    if not todo:
        return
    _check_space(folder, len(todo) * size * size * _BYTES_A_PIXEL)
    _write(folder / "prompt.json", json.dumps(_description(prior, prompts, size), indent=2))
    at_once = 1
    if cuda:
        at_once = batch or images_at_once(torch.cuda.mem_get_info()[0], size)
    tell_notice = notice or (lambda text: None)
    artist = _Artist(
        base, base.unet, prior, prompts, size, clip_skip, device, interrupted, tell_notice
    )
    if cuda and graphs:
        artist.unet = recorded_unet(base.unet, tell_notice)
    with artist, _Writer(behind=cuda) as writer:
        while todo:
            first = todo[0] - todo[0] % block
            if _is_whole(image_path(folder, todo[0])):  # another run draws the same set
                todo = todo[1:]
                tell(total - len(todo), total)
                continue
            whole = todo[:at_once] if cuda else list(range(first, first + block))
            part, pictures = [index for index in whole if index in todo], None
            try:
                pictures = artist.draw(whole)
            except RuntimeError as error:
                if at_once == 1 or not is_out_of_memory(error):
                    raise
            if pictures is None:  # here the error, whose traceback holds its tensors, is gone
                at_once, artist.unet = at_once // 2, base.unet  # a recording holds memory
                torch.cuda.empty_cache()
                if graphs and not artist.exact:
                    artist.unet = recorded_unet(base.unet, tell_notice)
                continue
            writer.write(folder, part, pictures[[whole.index(index) for index in part]])
            todo = todo[len(part) :]
            tell(total - len(todo), total)


def _block(size: int) -> int:
    """How many images a CPU draws together: 4 of up to 128 pixels, 1 from 182.

    On the miniature those of 64 pixels take 0.45 of the time so, those of 128 pixels 0.7.
    """
    return max(1, min(4, int(4 * (128 / size) ** 2)))


def images_at_once(free: int, size: int) -> int:
    """How many images to draw together in `free` bytes on a GPU: 1 to 16. Reckoned, not measured.

    An image of 512 x 512 pixels takes about 0.6 GB in the UNet, with its negative prompt; the VAE
    works on a quarter of them together, at about 1.5 GB each in fp32.
    """
    return max(1, min(16, int(free / (1e9 * (size / 512) ** 2))))


@dataclass
class _Artist:
    base: BaseModel
    unet: Any
    prior: Prior
    prompts: Sequence[str]
    size: int
    clip_skip: int
    device: torch.device
    interrupted: Callable[[], bool] | None
    notice: Callable[[str], None]
    exact: bool = False  # in fp32 on a GPU, too

    def __enter__(self) -> _Artist:
        self._dtype = self.base.unet.dtype
        return self

    def __exit__(self, *_: object) -> None:
        if self.exact:
            self.base.unet.to(self._dtype)

    @cached_property
    def texts(self) -> tuple[Tensor, Tensor]:
        """Embeddings of the p prompts and of the negative one, (p, 77, d) and (1, 77, d)."""
        with torch.no_grad():
            texts = [*self.prompts, self.prior.negative]
            ids = tokenize(self.base.tokenizer, texts).to(self.device)
            states = encode_text(self.base.text_encoder, ids, self.clip_skip)
        return states[:-1], states[-1:]

    def draw(self, indices: Sequence[int]) -> np.ndarray:
        """The images of these numbers, (n, size, size, 3) uint8."""
        latents = self._latents(indices)
        if not self.exact and self.device.type == "cuda" and not _finite(latents):
            self.exact, self.unet = True, self.base.unet.float()
            self.notice("In fp16 this base draws wrong numbers here; class images come in fp32.")
            latents = self._latents(indices)
        if not _finite(latents):
            raise RunFailed(
                "The base model draws wrong numbers (NaN or infinite) in place of class images. "
                "Is its file damaged?"
            )
        return decode(self.base.vae, latents, batch=max(1, len(indices) // 4))

    def _latents(self, indices: Sequence[int]) -> Tensor:
        positive, negative = self.texts
        seeds = [draws.derive(self.prior.seed, "class image", index) for index in indices]
        half, cuda = nullcontext(), self.device.type == "cuda"
        if cuda and not self.exact and self.unet is self.base.unet:
            half = torch.autocast("cuda", torch.float16)  # a recorded one has its own
        with half:
            return sample(
                self.unet,
                positive[[index % len(positive) for index in indices]],
                negative,
                noise_for(seeds, self.size, self.size),
                sigmas=sigmas_for(self.prior.steps, SCHEDULER),
                guidance=self.prior.guidance,
                solver=SOLVER,
                prediction=self.base.prediction,
                interrupted=self.interrupted,
                dtype=torch.float32 if cuda else None,  # autocast has its own
            )


def _finite(latents: Tensor) -> bool:
    return bool(torch.isfinite(latents).all())


class _Writer:
    """Writes images; with `behind` while the next ones are drawn."""

    def __init__(self, *, behind: bool) -> None:
        self._behind = behind
        self._pool = ThreadPoolExecutor(max_workers=4)
        self._pending: list[Future[None]] = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown()
        if kind is None:
            self._settle()

    def write(self, folder: Path, indices: Sequence[int], pictures: np.ndarray) -> None:
        """Raises OutOfSpace, also for images given before."""
        self._settle()
        self._pending = [
            self._pool.submit(_write_missing, path, picture)
            for path, picture in zip(
                (image_path(folder, index) for index in indices), pictures, strict=True
            )
        ]
        if not self._behind:
            self._settle()

    def _settle(self) -> None:
        pending, self._pending = self._pending, []
        for one in pending:
            one.result()


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


def _description(prior: Prior, prompts: Sequence[str], size: int) -> dict[str, Any]:
    """What is drawn and how, as `prompt.json` beside the images tells it."""
    return {
        "prompt": "\n".join(prompts),
        "negative": prior.negative,
        "size": size,
        "sampler": f"{SOLVER} {SCHEDULER}",
        "steps": prior.steps,
        "guidance": prior.guidance,
        "seed": prior.seed,
    }


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _write_missing(path: Path, picture: np.ndarray) -> None:
    if not _is_whole(path):
        _write(path, _png(picture))


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
