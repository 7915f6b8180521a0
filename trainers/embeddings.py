"""Embeddings of a run's prompts by a frozen text encoder, cached on disk by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from .run import Run
from .tensor_cache import read_tensor_cache, write_tensor_cache

_CACHE_VERSION = "embeddings 1"  # bumped when the meaning of the files changes


@dataclass(frozen=True)
class EmbeddingCache:
    """A cache file of embeddings (p, t, d); `notice(text)` reports why it cannot be written."""

    file: Path
    notice: Callable[[str], None]

    def read(self) -> Tensor | None:
        """The embeddings, on the CPU; None if missing or damaged."""
        found = read_tensor_cache(self.file, "embeddings")
        return None if found is None else found[0]

    def write(self, embeddings: Tensor) -> None:
        """Saves embeddings for later runs, which only take longer if this fails."""
        try:
            write_tensor_cache(self.file, {"embeddings": embeddings.detach().cpu().contiguous()})
        except OSError as error:
            self.notice(
                f"Encoded prompts cannot be cached in {self.file.parent} ({error.strerror}). This "
                "run continues; the next one encodes them again."
            )


def open_embedding_cache(run: Run, text_encoder: nn.Module, ids: Tensor) -> EmbeddingCache | None:
    """Cache of the embeddings of token ids (p, t); None if the run trains the text encoder.

    Its name depends on the base's digest and on everything that affects rounding.
    """
    spec = run.recipe.text_encoder
    if spec.train:
        return None
    dtype = next(text_encoder.parameters()).dtype
    parts = [_CACHE_VERSION, run.recipe.base.digest, spec.clip_skip, ids.device.type, dtype]
    parts += ["tf32"] if run.uses_tf32 else []
    text = "\n".join(map(str, [*parts, run.precision, tuple(ids.shape)]))
    key = hashlib.sha256(text.encode() + ids.cpu().numpy().tobytes()).hexdigest()
    return EmbeddingCache(run.places.cache / "embeddings" / f"{key}.safetensors", run.note)
