"""Loads shards into memory for sampling: images, token ids, ground truth and latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save
from torch import Tensor

from ..trainers.files import write_atomic
from .facts import QUESTIONS
from .pretrain_loop import half
from .pretrain_shards import CAPTIONS, SIZES, Size, captions_of, read, shards
from .pretrain_vae import to_unit
from .tokenizer import LENGTH, encode, vocabulary

_KIND = list(QUESTIONS).index("kind")


@dataclass(frozen=True)
class Pool:
    """All images of one size; each tensor has one row per image."""

    size: Size
    tensors: dict[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]


def load(
    folder: Path, images: int, keys: Sequence[str], device: torch.device | str = "cpu"
) -> list[Pool]:
    """One pool per size, of the existing shards for `images`.

    `keys` are arrays of a shard, or "ids": token ids (n, CAPTIONS, 77) int16 of the captions.
    """
    pools = []
    for size in SIZES:
        paths = [p for s, _, p in shards(folder, images) if s == size and p.is_file()]
        if paths:
            stored = ["captions" if key == "ids" else key for key in keys]
            rows = [read(path, *stored) for path in paths]
            columns = {
                key: [row[name] for row in rows] for key, name in zip(keys, stored, strict=True)
            }
            if "ids" in columns:
                columns["ids"] = [caption_ids(captions_of(text)) for text in columns["ids"]]
            tensors = {
                k: torch.from_numpy(np.concatenate(v)).to(device) for k, v in columns.items()
            }
            pools.append(Pool(size, tensors))
    return pools


def caption_ids(captions: Sequence[str]) -> np.ndarray:
    """Token ids (n, CAPTIONS, 77) int16 of n * CAPTIONS captions."""
    return token_ids(captions).reshape(-1, CAPTIONS, LENGTH)


def token_ids(texts: Sequence[str]) -> np.ndarray:
    """Token ids (n, 77) int16: start, words, padded with the end token, as in CLIP."""
    size = len(vocabulary()[0])
    ids = np.full((len(texts), LENGTH), size - 1, np.int16)
    ids[:, 0] = size - 2
    for row, text in zip(ids, texts, strict=True):
        words = encode(text)[: LENGTH - 2]
        row[1 : 1 + len(words)] = words
    return ids


def choose(pools: Sequence[Pool], rng: np.random.Generator) -> Pool:
    """A random pool, weighted by its number of images."""
    counts = np.array([len(pool) for pool in pools], float)
    return pools[int(rng.choice(len(pools), p=counts / counts.sum()))]


def people(pools: Sequence[Pool]) -> list[Pool]:
    """The pools without images of empty places."""
    return [_only(pool, pool["facts"][:, _KIND] == 0) for pool in pools]


def _only(pool: Pool, chosen: Tensor) -> Pool:
    """The images selected by a mask (n,)."""
    return Pool(pool.size, {key: value[chosen] for key, value in pool.tensors.items()})


def bodies(pools: Sequence[Pool], joints: int = 9) -> list[Pool]:
    """The images with at least `joints` visible joints, about which a skeleton says the most.

    A pool without any such image is kept whole.
    """
    seen = [pool["joints"][..., 2].sum(1) >= joints for pool in pools]
    return [_only(p, s) if bool(s.any()) else p for p, s in zip(pools, seen, strict=True)]


# Latents.


@torch.no_grad()
def with_latents(
    folder: Path, images: int, vae: AutoencoderTiny, cache: Path, keys: Sequence[str]
) -> list[Pool]:
    """Pools of `keys` and "latents" (n, 4, h / 8, w / 8) fp16, on the VAE's device.

    Latents are cached in `cache`, in a folder named after the VAE's weights.
    """
    home = cache / model_digest(vae)[:12]
    pools = load(folder, images, keys, vae.device)
    for pool in pools:
        paths = [p for s, _, p in shards(folder, images) if s == pool.size and p.is_file()]
        latents = [_latents(path, vae, home / path.name) for path in paths]
        pool.tensors["latents"] = torch.cat(latents)
    return pools


def _latents(shard: Path, vae: AutoencoderTiny, cached: Path) -> Tensor:
    if cached.is_file():
        return load_file(str(cached), device=str(vae.device))["latents"]
    pixels = torch.from_numpy(read(shard, "pixels")["pixels"])
    with half(vae.device):
        parts = [vae.encode(to_unit(part.to(vae.device))).latents for part in pixels.split(64)]
    latents = torch.cat(parts).half()
    write_atomic(cached, save({"latents": latents.cpu().contiguous()}))
    return latents


def model_digest(model: torch.nn.Module) -> str:
    """SHA-256 of a model's weights in fp16, the dtype of saved parts."""
    digest = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().half().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
