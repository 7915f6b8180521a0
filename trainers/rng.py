"""Every random number of a run, derived from (seed, purpose, step, slot).

No state is carried from step to step: a resumed run draws what an uninterrupted run draws, and a
sample's numbers do not depend on which process holds it or how a batch is split.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Tensor


def derive_seed(seed: int, purpose: str, *indices: int) -> int:
    """A 63-bit seed for one use: 8 bytes of BLAKE2b over seed, purpose and indices."""
    text = ":".join([str(seed), purpose, *map(str, indices)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *indices: int) -> torch.Generator:
    """A CPU generator for one use, so that the numbers are the same on every device."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *indices))


def randn(shape: tuple[int, ...], seed: int, purpose: str, *indices: int) -> Tensor:
    """Standard normal numbers of `shape`, fp32 on the CPU."""
    return torch.randn(shape, generator=generator(seed, purpose, *indices))


def randint(high: int, seed: int, purpose: str, *indices: int) -> int:
    """A uniform integer from 0 to high - 1."""
    return int(torch.randint(high, (1,), generator=generator(seed, purpose, *indices)))


def uniform(seed: int, purpose: str, *indices: int) -> float:
    """A uniform number from 0 to below 1."""
    return float(torch.rand((), generator=generator(seed, purpose, *indices)))


@lru_cache(maxsize=8)
def permutation(count: int, seed: int, purpose: str, epoch: int) -> tuple[int, ...]:
    """The order of `count` items in one epoch."""
    order = torch.randperm(count, generator=generator(seed, purpose, epoch))
    return tuple(order.tolist())


def shuffled_index(position: int, count: int, seed: int, purpose: str) -> int:
    """The item at `position` of an endless sequence of `count` items, reshuffled every epoch."""
    epoch, index = divmod(position, count)
    return permutation(count, seed, purpose, epoch)[index]
