"""Pictures as the UNet sees them, encoded once and kept on disk by content.

The VAE's posterior is kept, not a sample of it, so that each step can draw its own. However many
pictures there are, no more than HELD bytes of them are in memory.
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

MAX_CACHED_BYTES = 256 << 20  # bytes: 2,000 pictures of 512 x 512 pixels
_CACHE_VERSION = "latents 1"  # a new number when the files' content changes meaning


class LatentItem(Protocol):
    """A picture to encode. `key` names all that decides its pixels."""

    @property
    def key(self) -> str: ...

    def pixels(self) -> np.ndarray:
        """RGB pixels (H, W, 3), uint8."""
        ...


@dataclass(frozen=True)
class Latents:
    """The posterior of one picture, times the VAE's scaling factor, fp32 on the CPU.

    ``mean + deviation * noise`` is a sample as the UNet sees it. An AutoencoderTiny has no
    posterior: its deviation is 0.
    """

    mean: Tensor  # (4, h, w)
    std: Tensor  # (4, h, w)

    def read(self) -> Latents:
        """These latents."""
        return self


@dataclass(frozen=True)
class StoredLatents:
    """Latents that are left in the cache and read whenever they are used."""

    file: Path

    def read(self) -> Latents:
        """The latents. Raises RunFailed where the file is gone or damaged since it was written."""
        latents = _read(self.file)
        if latents is None:
            raise RunFailed(
                f"The encoded picture {self.file} is gone or damaged since the run began. Start "
                "the run again: it encodes the picture anew and goes on from its last checkpoint."
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
    """The latents of `items`, in order: from `cache`/latents where they are, else encoded.

    The VAE lies on `device` and encodes in its own dtype, `batch` pictures of one size at a time;
    on the CPU one at a time, so that a value never depends on what the cache held already.
    Damaged cache files are written anew. Beyond HELD bytes latents stay in their files. When the
    cache cannot be written (a full disk), one `notice(text)` says so and the rest stays in memory.
    `progress(done, total)` is called after each batch. Of several processes that share a cache each
    encodes its part, by `rank_and_world` (its own, their number), and after `wait`, for all of
    them, reads what the others wrote; what is not there then it encodes itself.
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
    """The latents of pictures (n, H, W, 3), uint8, of one size."""
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
            "The VAE gave values that are not finite for a photograph or class image, and nothing "
            "of it was kept. Start again; if that is no help, choose another base model."
        )
    whole = torch.contiguous_format  # and a storage of its own for each picture
    return [
        Latents(m.clone(memory_format=whole), d.clone(memory_format=whole))
        for m, d in zip(means, stds, strict=True)
    ]


def _encode_with_fallback(vae: Any, pixels: np.ndarray, device: torch.device) -> list[Latents]:
    """`encode`, one picture at a time where the memory does not do for all together."""
    try:
        return encode(vae, pixels, device)
    except RuntimeError as error:
        if len(pixels) == 1 or not is_out_of_memory(error):
            raise
    release_memory()  # here the error, whose traceback holds tensors, is gone
    return [latents for one in pixels for latents in encode(vae, one[None], device)]


def _batches(
    todo: Sequence[int], items: Sequence[LatentItem], size: int
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Indices and their pixels (n, H, W, 3), up to `size` pictures of one size together."""
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
    """Pixels in order, read by threads up to `prefetch` pictures before they are needed."""
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
    """The dtype is part of the name: what an fp16 run encoded is not what an fp32 run would."""
    if cache is None:
        return None
    text = "\n".join([_CACHE_VERSION, vae_digest, str(vae.dtype), item.key])
    key = hashlib.sha256(text.encode()).hexdigest()
    return Path(cache) / "latents" / key[:2] / f"{key}.safetensors"


def _read(file: Path) -> Latents | None:
    """The content of a cache file; None if it is absent or damaged."""
    found = read_tensor_cache(file, "mean", "deviation")
    return None if found is None else Latents(*found)


class _LatentCache:
    """Latents in memory up to HELD bytes, the rest in the cache's files.

    Files are written until the first failure, which is told.
    """

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._is_writable = True
        self._cached_bytes = 0  # bytes

    def find(self, file: Path | None) -> Latents | StoredLatents | None:
        """What a cache file has; None if there is none, or it is damaged."""
        latents = None if file is None else _read(file)
        return None if latents is None else self._placed(latents, file)

    def put(self, latents: Latents, file: Path | None) -> Latents | StoredLatents:
        """New latents, which are also written to `file`."""
        return self._placed(latents, file if self._written(latents, file) else None)

    def _placed(self, latents: Latents, file: Path | None) -> Latents | StoredLatents:
        size = latents.mean.nbytes + latents.std.nbytes
        if file is not None and self._cached_bytes + size > MAX_CACHED_BYTES:
            return StoredLatents(file)
        self._cached_bytes += size
        return latents

    def _written(self, latents: Latents, file: Path | None) -> bool:
        if file is None or not self._is_writable:
            return False
        try:
            write_tensor_cache(file, {"mean": latents.mean, "deviation": latents.std})
        except OSError as error:
            self._is_writable = False
            self._notice(
                f"Encoded pictures cannot be kept in {file.parent.parent} ({error.strerror}); "
                "this run goes on, the next one encodes them again."
            )
        return self._is_writable
