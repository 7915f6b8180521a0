"""Embeddings of a run's prompts by a text encoder that learns nothing, kept on disk by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from .run import Run
from .tensor_cache import read_tensor_cache, write_tensor_cache

_CACHE_VERSION = "embeddings 1"  # a new number when the files' content changes meaning


@dataclass(frozen=True)
class EmbeddingCache:
    """A cache file of embeddings (p, t, d); `notice(text)` says why it could not be written."""

    file: Path
    notice: Callable[[str], None]

    def read(self) -> Tensor | None:
        """The embeddings, on the CPU; None where there are none, or they are damaged."""
        found = read_tensor_cache(self.file, "embeddings")
        return None if found is None else found[0]

    def write(self, embeddings: Tensor) -> None:
        """Keeps them for later runs. A disk without room costs these nothing but the time."""
        try:
            write_tensor_cache(self.file, {"embeddings": embeddings.detach().cpu().contiguous()})
        except OSError as error:
            self.notice(
                f"Encoded prompts cannot be kept in {self.file.parent} ({error.strerror}); this "
                "run goes on, the next one encodes them again."
            )


def open_embedding_cache(run: Run, text_encoder: nn.Module, ids: Tensor) -> EmbeddingCache | None:
    """Where those of token ids (p, t) are kept; None in a run whose text encoder learns.

    All that rounding depends on is part of the name, as is the base's digest.
    """
    spec = run.recipe.text_encoder
    if spec.train:
        return None
    dtype = next(text_encoder.parameters()).dtype
    parts = [_CACHE_VERSION, run.recipe.base.digest, spec.clip_skip, ids.device.type, dtype]
    text = "\n".join(map(str, [*parts, run.precision, tuple(ids.shape)]))
    key = hashlib.sha256(text.encode() + ids.cpu().numpy().tobytes()).hexdigest()
    return EmbeddingCache(run.places.cache / "embeddings" / f"{key}.safetensors", run.note)
