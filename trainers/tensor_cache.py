"""Computed tensors in a cache file, with a checksum of their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .files import write_atomic


def write_tensor_cache(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes contiguous CPU tensors atomically. Raises OSError."""
    data = save(dict(tensors), {"checksum": _checksum(tensors.values())})
    write_atomic(file, data, durable=False)


def read_tensor_cache(file: Path, *names: str) -> list[Tensor] | None:
    """The named tensors; None if the file is missing or damaged, or one is not finite."""
    try:
        with safe_open(file, "pt") as opened:
            # Copies: a tensor keeps its file mapped, and the number of mappings is limited.
            tensors = [opened.get_tensor(name).clone() for name in names]
            checksum = (opened.metadata() or {}).get("checksum")
    except (OSError, SafetensorError):
        return None
    whole = checksum == _checksum(tensors) and all(t.isfinite().all() for t in tensors)
    return tensors if whole else None


def _checksum(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
