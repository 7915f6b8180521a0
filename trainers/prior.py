"""Class images for prior preservation: drawn once by the base model, shared by all runs.

Image i of a set depends only on the set's key and on i, up to rounding by the device and precision
of the run that first needed it. So drawing can stop at any image, resume later and be sharded over
processes; a larger set starts with the smaller one; and a run draws only the images that it uses.
"""

from __future__ import annotations

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
from .class_image_sets import SCHEDULER, SOLVER, description
from .cuda_graphs import graphed_unet
from .errors import RunFailed
from .gpu_capabilities import has_fp16, supports_cuda_graphs
from .memory import is_out_of_memory
from .recipe import Prior
from .sampler import calculate_sigmas, decode, prepare_noise, sample
from .text_encoding import encode_text, tokenize
from .tokenizer import CHUNK_TOKENS

if TYPE_CHECKING:
    from .base_model import BaseModel


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
    max_tokens: int = CHUNK_TOKENS,
    progress: Callable[[int, int], None] | None = None,
    interrupted: Callable[[], bool] | None = None,
    notice: Callable[[str], None] | None = None,
    graphs: bool = True,
    rank_and_world: tuple[int, int] = (0, 1),
    from_end: bool = False,
) -> None:
    """Draws the images of `size` x `size` pixels that `folder` lacks: of `numbers`, ascending, or
    of the first `prior.count`.

    Image i shows prompt i modulo their number. The base's parts are on `device`. `rank_and_world`
    is (rank, processes): images, or blocks of them on a CPU, go to the ranks in turn; each draws
    its last ones first if `from_end`. `progress(done, total)` counts this rank's images. On a GPU
    the UNet runs in fp16 whatever the recipe's precision, since the set is shared, and with
    `graphs` in CUDA graphs; if it cannot, `notice(text)` says so. Raises OutOfSpace, and
    RunCancelled when `interrupted()` is true; images drawn so far are kept.
    """
    generator = _ImageGenerator(
        base,
        prior,
        prompts,
        size,
        clip_skip,
        max_tokens,
        device,
        graphs,
        interrupted,
        notice or _ignore,
    )
    own = _shard(
        range(prior.count) if numbers is None else numbers, generator.block, rank_and_world
    )
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
    write(folder / "prompt.json", json.dumps(description(prior, prompts, size), indent=2))
    with generator, ClassImageWriter(in_background=generator.cuda) as writer:
        for batch in _batches(folder, todo, generator.next_batch, report_progress):
            for indices, images in generator.draw(batch):
                writer.write(folder, indices, images)


def _ignore(text: str) -> None:
    pass


def _shard(numbers: Sequence[int], block: int, rank_and_world: tuple[int, int]) -> list[int]:
    """The numbers, of an ascending list, that a rank draws: blocks go to the ranks in turn."""
    rank, world_size = rank_and_world
    blocks = [list(group) for _, group in groupby(numbers, key=lambda index: index // block)]
    return [index for one in blocks[rank::world_size] for index in one]


def _batches(
    folder: Path,
    todo: Sequence[int],
    next_batch: Callable[[Sequence[int]], Sequence[int]],
    report_progress: Callable[[int], None],
) -> Iterator[Sequence[int]]:
    """The batches to draw, skipping existing images; calls `report_progress(left)` after each."""
    while todo:
        # Another run may be drawing the same set.
        exists = is_complete_png(image_path(folder, todo[0]))
        batch = todo[:1] if exists else next_batch(todo)
        if not exists:
            yield batch
        todo = todo[len(batch) :]
        report_progress(len(todo))


def _cpu_batch_size(size: int) -> int:
    """How many images a CPU draws at once: 4 of up to 128 pixels a side, 1 from 182 on.

    On the miniature this takes 0.45 of the time at 64 pixels, and 0.7 at 128 pixels.
    """
    return max(1, min(4, int(4 * (128 / size) ** 2)))


def gpu_batch_size(free: int, size: int) -> int:
    """How many images a GPU draws at once in `free` bytes: 1 to 16. Estimated, not measured.

    An image of 512 x 512 pixels takes about 0.6 GB in the UNet, with its negative prompt; the VAE
    decodes a quarter of them at once, at about 1.5 GB each in fp32.
    """
    return max(1, min(16, int(free / (1e9 * (size / 512) ** 2))))


@dataclass
class _ImageGenerator:
    """Draws images by number; a context manager.

    On a GPU it draws as many at once as memory allows, halving when that runs out. On a CPU it
    draws small images in blocks of a fixed size, whole even if one image is wanted, so that
    rounding does not depend on how a set is split.
    """

    base: BaseModel
    prior: Prior
    prompts: Sequence[str]
    size: int
    clip_skip: int
    max_tokens: int
    device: torch.device
    graphs: bool
    interrupted: Callable[[], bool] | None
    notice: Callable[[str], None]
    full_precision: bool = field(default=False, init=False)  # fp32 on a GPU too

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
        self._capture()
        return self

    def __exit__(self, *_: object) -> None:
        if self.full_precision:
            self.base.unet.to(self._dtype)  # type: ignore[arg-type]  # diffusers wraps `to`

    def next_batch(self, todo: Sequence[int]) -> Sequence[int]:
        """The first images of `todo`, to be drawn at once."""
        if self.cuda:
            return todo[: self.batch_size]
        block = todo[0] // self.block
        return list(takewhile(lambda index: index // self.block == block, todo))

    def draw(self, indices: Sequence[int]) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        """Yields n numbers at a time with their images (n, size, size, 3), uint8."""
        while indices:
            part = indices[: self.batch_size]
            images = self._try_draw(part)
            if images is not None:
                yield part, images
                indices = indices[len(part) :]

    def _try_draw(self, indices: Sequence[int]) -> np.ndarray | None:
        """Their images; None if memory ran out, after which less is used."""
        first = indices[0] - indices[0] % self.block
        whole = indices if self.cuda else range(first, first + self.block)
        try:
            return self.images(whole)[[whole.index(index) for index in indices]]
        except RuntimeError as error:
            if not is_out_of_memory(error) or not self._can_reduce_memory():
                raise
        self._reduce_memory()  # outside `except`: the error's traceback would keep tensors alive
        return None

    def _can_reduce_memory(self) -> bool:
        return self.cuda and (self._is_captured() or self.batch_size > 1)

    def _reduce_memory(self) -> None:
        """Drops the CUDA graphs, which hold memory; without any, halves the batch."""
        was_captured, self.unet = self._is_captured(), self.base.unet
        torch.cuda.empty_cache()
        if not was_captured:
            self.batch_size //= 2
            self._capture()

    def _is_captured(self) -> bool:
        return self.unet is not self.base.unet

    def _capture(self) -> None:
        if self.graphs and not self.full_precision and supports_cuda_graphs(self.device):
            self.unet = graphed_unet(self.base.unet, self.notice)

    @cached_property
    def texts(self) -> tuple[Tensor, Tensor]:
        """Embeddings of the p prompts and of the negative prompt, (p, t, d) and (1, t, d)."""
        with torch.no_grad():
            texts = [*self.prompts, self.prior.negative]
            ids = tokenize(self.base.tokenizer, texts, self.max_tokens).to(self.device)
            states = encode_text(self.base.text_encoder, ids, self.clip_skip)
        return states[:-1], states[-1:]

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """The images of these numbers, drawn at once: (n, size, size, 3), uint8.

        Raises RunFailed if the latents are not finite in fp32 either.
        """
        latents = self._latents(indices)
        if not self.full_precision and self.cuda and not _all_finite(latents):
            self._use_full_precision()
            self.notice(
                "In fp16 this base model gives NaN or infinite values; class images use fp32."
            )
            latents = self._latents(indices)
        if not _all_finite(latents):
            raise RunFailed(
                "The base model gives NaN or infinite values instead of class images. Is its file "
                "damaged?"
            )
        return decode(self.base.vae, latents, batch=max(1, len(indices) // 4))

    def _use_full_precision(self) -> None:
        self.full_precision, self.unet = True, self.base.unet.float()

    def _latents(self, indices: Sequence[int]) -> Tensor:
        positive, negative = self.texts
        seeds = [rng.derive_seed(self.prior.seed, "class image", index) for index in indices]
        half: AbstractContextManager[Any] = nullcontext()
        if self.cuda and not self.full_precision and not self._is_captured():
            half = torch.autocast("cuda", torch.float16)  # captured graphs have their own
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
                dtype=torch.float32 if self.cuda else None,  # autocast casts by itself
            )


def _all_finite(latents: Tensor) -> bool:
    return bool(torch.isfinite(latents).all())
