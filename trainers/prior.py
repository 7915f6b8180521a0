"""Class images for prior preservation: drawn by the base model once, shared by all runs.

Image i of a set depends on the set's key and on i alone, but for the rounding of the device and
precision of the run that was first to need it. So drawing can stop at any image, go on later, be
shared out over processes, a larger set begins with the smaller one, and a run draws only those that
it shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from . import rng
from .class_image_files import (
    ClassImageWriter,
    check_disk_space,
    image_path,
    is_complete_png,
    missing,
    write,
)
from .cuda_graphs import graphed_unet
from .errors import RunFailed
from .gpu_capabilities import has_fp16, supports_cuda_graphs
from .memory import is_out_of_memory
from .recipe import Prior
from .sampler import Scheduler, Solver, calculate_sigmas, decode, prepare_noise, sample
from .text_encoding import encode_text, tokenize

if TYPE_CHECKING:
    from .base_model import BaseModel

# DPM-Solver++(2M) with Karras' sigmas: about 25 steps do what 50 of the older solvers did
# (arXiv:2211.01095, section 7), which halves the longest wait before a first run.
SOLVER: Solver = "dpmpp_2m"
SCHEDULER: Scheduler = "karras"

# Of the drawing. Raise it with a change after which a number's image shows something else (its
# noise, the sampler's maths, the decoding), or a set would be of two kinds: all are drawn anew
# then, in folders of their own. Not for rounding.
VERSION = 1


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
    drawn = _description(prior, prompts, size)
    text = json.dumps([VERSION, base_digest, prediction, clip_skip, drawn])
    return hashlib.sha256(text.encode()).hexdigest()


def prior_folder(cache: Path, key: str) -> Path:
    """Where the set of this key lies: ``class_images/<16 digits>/`` in `cache`."""
    return Path(cache) / "class_images" / key[:16]


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


def draw_class_images(
    base: BaseModel,
    prior: Prior,
    prompts: Sequence[str],
    folder: Path,
    *,
    device: torch.device,
    size: int,
    numbers: Sequence[int] | None = None,
    clip_skip: int = 1,
    progress: Callable[[int, int], None] | None = None,
    interrupted: Callable[[], bool] | None = None,
    notice: Callable[[str], None] | None = None,
    graphs: bool = True,
    rank_and_world: tuple[int, int] = (0, 1),
    from_end: bool = False,
) -> None:
    """Draws those images of `size` x `size` that `folder` lacks: of `numbers`, ascending, or of
    the first `prior.count`.

    Image i shows prompt i modulo their number. The base's parts lie on `device`. `rank_and_world`
    is (rank, processes): they take one image after the other in turn, on a CPU one block, the
    last ones first if `from_end`. `progress(done, total)` counts this rank's
    images. On a GPU the UNet works in fp16 whatever the recipe's precision, since the set is
    shared, and with `graphs` in CUDA graphs; where it cannot, `notice(text)` says so. Raises
    OutOfSpace, and RunCancelled when `interrupted()` is true; what is drawn stays.
    """
    artist = _ImageGenerator(
        base, prior, prompts, size, clip_skip, device, graphs, interrupted, notice or _ignore
    )
    own = _shard(range(prior.count) if numbers is None else numbers, artist.block, rank_and_world)
    todo = missing(folder, own)
    if from_end:
        todo.reverse()

    def report_progress(left: int) -> None:
        if progress is not None:
            progress(len(own) - left, len(own))

    report_progress(len(todo))
    if not todo:
        return
    check_disk_space(folder, len(todo), size)
    write(folder / "prompt.json", json.dumps(_description(prior, prompts, size), indent=2))
    with artist, ClassImageWriter(in_background=artist.cuda) as writer:
        for turn in _batches(folder, todo, artist.next_batch, report_progress):
            for indices, pictures in artist.draw(turn):
                writer.write(folder, indices, pictures)


def _ignore(text: str) -> None:
    pass


def _shard(numbers: Sequence[int], block: int, rank_and_world: tuple[int, int]) -> list[int]:
    """Those of ascending numbers that a rank draws: block after block goes to the next rank."""
    rank, world_size = rank_and_world
    blocks = [list(group) for _, group in groupby(numbers, key=lambda index: index // block)]
    return [index for one in blocks[rank::world_size] for index in one]


def _batches(
    folder: Path,
    todo: Sequence[int],
    next_batch: Callable[[Sequence[int]], Sequence[int]],
    report_progress: Callable[[int], None],
) -> Iterator[Sequence[int]]:
    """What to draw next, while there is something; `report_progress(left)` after each turn."""
    while todo:
        there = is_complete_png(
            image_path(folder, todo[0])
        )  # of another run that draws the same set
        turn = todo[:1] if there else next_batch(todo)
        if not there:
            yield turn
        todo = todo[len(turn) :]
        report_progress(len(todo))


def _cpu_batch_size(size: int) -> int:
    """How many images a CPU draws together: 4 of up to 128 pixels, 1 from 182.

    On the miniature those of 64 pixels take 0.45 of the time so, those of 128 pixels 0.7.
    """
    return max(1, min(4, int(4 * (128 / size) ** 2)))


def gpu_batch_size(free: int, size: int) -> int:
    """How many images to draw together in `free` bytes on a GPU: 1 to 16. Reckoned, not measured.

    An image of 512 x 512 pixels takes about 0.6 GB in the UNet, with its negative prompt; the VAE
    works on a quarter of them together, at about 1.5 GB each in fp32.
    """
    return max(1, min(16, int(free / (1e9 * (size / 512) ** 2))))


@dataclass
class _ImageGenerator:
    """Draws images by their numbers, inside a `with`.

    On a GPU as many together as the memory allows, and fewer where it does not. On a CPU small
    ones in blocks of a fixed size, which are drawn whole even if one image is wanted, so that
    rounding is the same however the drawing of a set is parted.
    """

    base: BaseModel
    prior: Prior
    prompts: Sequence[str]
    size: int
    clip_skip: int
    device: torch.device
    graphs: bool
    interrupted: Callable[[], bool] | None
    notice: Callable[[str], None]
    full_precision: bool = field(default=False, init=False)  # in fp32 on a GPU, too

    def __post_init__(self) -> None:
        self.cuda = self.device.type == "cuda"
        self.block = self.batch_size = 1 if self.cuda else _cpu_batch_size(self.size)
        self.unet: Any = self.base.unet

    def __enter__(self) -> _ImageGenerator:
        self._dtype = self.base.unet.dtype
        if self.cuda:
            if not has_fp16(self.device):
                self._use_full_precision()
            self.batch_size = gpu_batch_size(torch.cuda.mem_get_info()[0], self.size)
        self._record()
        return self

    def __exit__(self, *_: object) -> None:
        if self.full_precision:
            self.base.unet.to(self._dtype)  # type: ignore[arg-type]  # diffusers wraps `to`

    def next_batch(self, todo: Sequence[int]) -> Sequence[int]:
        """Those at the beginning of `todo` that are drawn together."""
        if self.cuda:
            return todo[: self.batch_size]
        block = todo[0] // self.block
        return list(takewhile(lambda index: index // self.block == block, todo))

    def draw(self, indices: Sequence[int]) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        """Their images (n, size, size, 3), uint8, each time with the n numbers they are of."""
        while indices:
            part = indices[: self.batch_size]
            pictures = self._try_draw(part)
            if pictures is not None:
                yield part, pictures
                indices = indices[len(part) :]

    def _try_draw(self, indices: Sequence[int]) -> np.ndarray | None:
        """Their images; None where there was no memory for them, of which there is more now."""
        first = indices[0] - indices[0] % self.block
        whole = indices if self.cuda else range(first, first + self.block)
        try:
            return self.pictures(whole)[[whole.index(index) for index in indices]]
        except RuntimeError as error:
            if not is_out_of_memory(error) or not self._can_reduce_memory():
                raise
        self._reduce_memory()  # here the error, whose traceback holds its tensors, is gone
        return None

    def _can_reduce_memory(self) -> bool:
        return self.cuda and (self._is_recorded() or self.batch_size > 1)

    def _reduce_memory(self) -> None:
        """Drops the recording, which holds memory; where there is none, draws half as many."""
        was_recorded, self.unet = self._is_recorded(), self.base.unet
        torch.cuda.empty_cache()
        if not was_recorded:
            self.batch_size //= 2
            self._record()

    def _is_recorded(self) -> bool:
        return self.unet is not self.base.unet

    def _record(self) -> None:
        if self.graphs and not self.full_precision and supports_cuda_graphs(self.device):
            self.unet = graphed_unet(self.base.unet, self.notice)

    @cached_property
    def texts(self) -> tuple[Tensor, Tensor]:
        """Embeddings of the p prompts and of the negative one, (p, 77, d) and (1, 77, d)."""
        with torch.no_grad():
            texts = [*self.prompts, self.prior.negative]
            ids = tokenize(self.base.tokenizer, texts).to(self.device)
            states = encode_text(self.base.text_encoder, ids, self.clip_skip)
        return states[:-1], states[-1:]

    def pictures(self, indices: Sequence[int]) -> np.ndarray:
        """The images of these numbers, drawn together: (n, size, size, 3), uint8.

        Raises RunFailed where the base draws wrong numbers in fp32, too.
        """
        latents = self._latents(indices)
        if not self.full_precision and self.cuda and not _all_finite(latents):
            self._use_full_precision()
            self.notice("In fp16 this base draws wrong numbers here; class images come in fp32.")
            latents = self._latents(indices)
        if not _all_finite(latents):
            raise RunFailed(
                "The base model draws wrong numbers (NaN or infinite) in place of class images. "
                "Is its file damaged?"
            )
        return decode(self.base.vae, latents, batch=max(1, len(indices) // 4))

    def _use_full_precision(self) -> None:
        self.full_precision, self.unet = True, self.base.unet.float()

    def _latents(self, indices: Sequence[int]) -> Tensor:
        positive, negative = self.texts
        seeds = [rng.derive_seed(self.prior.seed, "class image", index) for index in indices]
        half: AbstractContextManager[Any] = nullcontext()
        if self.cuda and not self.full_precision and not self._is_recorded():
            half = torch.autocast("cuda", torch.float16)  # a recorded one has its own
        with half:
            return sample(
                self.unet,
                positive[[index % len(positive) for index in indices]],
                negative,
                prepare_noise(seeds, self.size, self.size),
                sigmas=calculate_sigmas(self.prior.steps, SCHEDULER),
                guidance=self.prior.guidance,
                solver=SOLVER,
                prediction=self.base.prediction,
                interrupted=self.interrupted,
                dtype=torch.float32 if self.cuda else None,  # autocast has its own
            )


def _all_finite(latents: Tensor) -> bool:
    return bool(torch.isfinite(latents).all())
