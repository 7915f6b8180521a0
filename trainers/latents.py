"""Latents of images, encoded once and cached on disk by content.

The cache holds the VAE's posterior rather than a sample, so that each step can draw its own. At
most MAX_CACHED_BYTES of latents are held in memory.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .errors import RunFailed
from .memory import is_out_of_memory, release_memory
from .tensor_cache import read_tensor_cache, write_tensor_cache

MAX_CACHED_BYTES = 256 << 20  # bytes in memory: 2,000 images of 512 x 512 pixels
_CACHE_VERSION = "latents 1"  # increment when the meaning of the files changes


class LatentItem(Protocol):
    """An image to encode. `key` identifies everything that determines its pixels."""

    @property
    def key(self) -> str: ...

    def pixels(self) -> np.ndarray:
        """RGB pixels (H, W, 3), uint8."""
        ...


@dataclass(frozen=True)
class Latents:
    """The posterior of one image, times the VAE's scaling factor, fp32 on the CPU.

    ``mean + std * noise`` is a sample as the UNet sees it. An AutoencoderTiny has no posterior:
    its `std` is 0.
    """

    mean: Tensor  # (4, h, w)
    std: Tensor  # (4, h, w)

    def read(self) -> Latents:
        """These latents."""
        return self


@dataclass(frozen=True)
class StoredLatents:
    """Latents that stay in the disk cache and are read on each use."""

    file: Path

    def read(self) -> Latents:
        """The latents. Raises RunFailed if the file has been removed or damaged since."""
        latents = _read(self.file)
        if latents is None:
            raise RunFailed(
                f"The cached latents {self.file} were removed or damaged during the run. Start "
                "the run again: it encodes the image again and resumes from its last saved state."
            )
        return latents


def encode_images(
    vae: Any,
    items: Sequence[LatentItem],
    *,
    cache: Path | None,
    vae_digest: str,
    device: torch.device,
    batch: int = 4,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
    rank_and_world: tuple[int, int] = (0, 1),
    wait: Callable[[], object] = lambda: None,
) -> list[Latents | StoredLatents]:
    """The latents of `items`, in order: from `cache`/latents if cached there, else encoded.

    The VAE is on `device` and encodes in its own dtype, `batch` images of one size at a time; on
    the CPU one at a time, so that values never depend on what was already cached. Damaged cache
    files are rewritten. Beyond MAX_CACHED_BYTES, latents stay in their files. If the cache cannot
    be written (a full disk), one `notice(text)` says so and the rest stays in memory.
    `progress(done, total)` is called after each batch. Of several processes that share a cache,
    each encodes its shard by `rank_and_world`, calls `wait` (a barrier), and reads what the others
    wrote; what is then missing it encodes itself.
    """
    files = [_cache_path(cache, vae, vae_digest, item) for item in items]
    latent_cache = _LatentCache(notice or (lambda text: None))
    found = [latent_cache.find(file) for file in files]
    todo = [index for index, latents in enumerate(found) if latents is None]
    tell = progress or (lambda done, total: None)
    tell(len(items) - len(todo), len(items))
    size = 1 if torch.device(device).type == "cpu" else batch
    rank, world_size = rank_and_world
    own = [index for index in todo if index % world_size == rank]
    others = [index for index in todo if index % world_size != rank]

    def encode_all(part: Sequence[int], left: int) -> None:
        for indices, pixels in _batches(part, items, size):
            for index, latents in zip(
                indices, _encode_with_fallback(vae, pixels, device), strict=True
            ):
                found[index] = latent_cache.put(latents, files[index])
            left -= len(indices)
            tell(len(items) - left, len(items))

    encode_all(own, len(todo))
    wait()
    for index in others:
        found[index] = latent_cache.find(files[index])
    left_over = [index for index in others if found[index] is None]
    encode_all(left_over, len(left_over))
    return [latents for latents in found if latents is not None]


@torch.no_grad()
def encode(vae: Any, pixels: np.ndarray, device: torch.device) -> list[Latents]:
    """The latents of images (n, H, W, 3), uint8. Raises RunFailed if they are not finite."""
    images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).contiguous()  # (n, 3, H, W)
    images = (images.float() / 127.5 - 1).to(vae.dtype)
    scale, output = vae.config.scaling_factor, vae.encode(images)
    if hasattr(output, "latent_dist"):
        mean, std = output.latent_dist.mean, output.latent_dist.std
    else:
        mean, std = output.latents, torch.zeros_like(output.latents)
    means, stds = (mean.float() * scale).cpu(), (std.float() * scale).cpu()
    if not (means.isfinite().all() and stds.isfinite().all()):
        raise RunFailed(
            "The VAE gave NaN or infinite values for a photograph or class image; they were not "
            "cached. Start again; if that does not help, choose another base model."
        )
    layout = torch.contiguous_format  # cloned: each image gets its own storage
    return [
        Latents(mean.clone(memory_format=layout), std.clone(memory_format=layout))
        for mean, std in zip(means, stds, strict=True)
    ]


def _encode_with_fallback(vae: Any, pixels: np.ndarray, device: torch.device) -> list[Latents]:
    """`encode`, falling back to one image at a time when memory runs out."""
    try:
        return encode(vae, pixels, device)
    except RuntimeError as error:
        if len(pixels) == 1 or not is_out_of_memory(error):
            raise
    release_memory()  # outside `except`: the error's traceback would keep tensors alive
    return [latents for one in pixels for latents in encode(vae, one[None], device)]


def _batches(
    todo: Sequence[int], items: Sequence[LatentItem], size: int
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Indices and their pixels (n, H, W, 3), in batches of up to `size` images of one size."""
    waiting: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    for index, pixels in _prefetch(todo, items, prefetch=2 * size):
        group = waiting.setdefault(pixels.shape, [])
        group.append((index, pixels))
        if len(group) == size:
            yield _stack(waiting.pop(pixels.shape))
    for group in waiting.values():
        yield _stack(group)


def _stack(group: list[tuple[int, np.ndarray]]) -> tuple[list[int], np.ndarray]:
    return [index for index, _ in group], np.stack([pixels for _, pixels in group])


def _prefetch(
    todo: Sequence[int], items: Sequence[LatentItem], prefetch: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Pixels in order, read by threads up to `prefetch` images ahead."""
    running: deque[tuple[int, Future[np.ndarray]]] = deque()
    with ThreadPoolExecutor(max_workers=4) as pool:
        for index in todo:
            running.append((index, pool.submit(items[index].pixels)))
            if len(running) > prefetch:
                first, future = running.popleft()
                yield first, future.result()
        for first, future in running:
            yield first, future.result()


def _cache_path(cache: Path | None, vae: Any, vae_digest: str, item: LatentItem) -> Path | None:
    """The cache file of an image; its name depends on the dtype, since fp16 latents differ."""
    if cache is None:
        return None
    text = "\n".join([_CACHE_VERSION, vae_digest, str(vae.dtype), item.key])
    key = hashlib.sha256(text.encode()).hexdigest()
    return Path(cache) / "latents" / key[:2] / f"{key}.safetensors"


def _read(file: Path) -> Latents | None:
    """The content of a cache file; None if it is missing or damaged."""
    found = read_tensor_cache(file, "mean", "deviation")
    return None if found is None else Latents(*found)


class _LatentCache:
    """Latents in memory up to MAX_CACHED_BYTES, the rest in cache files.

    Stops writing files at the first failure, and reports it.
    """

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._is_writable = True
        self._cached_bytes = 0

    def find(self, file: Path | None) -> Latents | StoredLatents | None:
        """Cached latents; None if the file is missing or damaged."""
        latents = None if file is None else _read(file)
        return None if latents is None else self._place(latents, file)

    def put(self, latents: Latents, file: Path | None) -> Latents | StoredLatents:
        """Adds new latents, and writes them to `file`."""
        return self._place(latents, file if self._write(latents, file) else None)

    def _place(self, latents: Latents, file: Path | None) -> Latents | StoredLatents:
        size = latents.mean.nbytes + latents.std.nbytes
        if file is not None and self._cached_bytes + size > MAX_CACHED_BYTES:
            return StoredLatents(file)
        self._cached_bytes += size
        return latents

    def _write(self, latents: Latents, file: Path | None) -> bool:
        if file is None or not self._is_writable:
            return False
        try:
            write_tensor_cache(file, {"mean": latents.mean, "deviation": latents.std})
        except OSError as error:
            self._is_writable = False
            self._notice(
                f"Latents cannot be cached in {file.parent.parent} ({error.strerror}); this run "
                "continues, but the next one encodes the images again."
            )
        return self._is_writable
