"""Embeddings of a run's prompts by a text encoder that learns nothing, kept on disk by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .files import write_whole
from .run import Run

_FORMAT = "embeddings 1"  # a new number when the files' content changes meaning


@dataclass(frozen=True)
class KeptEmbeddings:
    """A cache file of embeddings (p, 77, d); `notice(text)` says why it could not be written."""

    file: Path
    notice: Callable[[str], None]

    def read(self) -> Tensor | None:
        """The embeddings, on the CPU; None where there are none, or they are damaged."""
        try:
            with safe_open(self.file, "pt") as opened:
                embeddings: Tensor = opened.get_tensor("embeddings").clone()
                checksum = (opened.metadata() or {}).get("checksum")
        except (OSError, SafetensorError):
            return None
        return embeddings if checksum == _checksum(embeddings) else None

    def write(self, embeddings: Tensor) -> None:
        """Keeps them for later runs. A disk without room costs these nothing but the time."""
        content = embeddings.detach().cpu().contiguous()
        try:
            data = save({"embeddings": content}, {"checksum": _checksum(content)})
            write_whole(self.file, data, lasting=False)
        except OSError as error:
            self.notice(
                f"Encoded prompts cannot be kept in {self.file.parent} ({error.strerror}); this "
                "run goes on, the next one encodes them again."
            )


def kept_embeddings(run: Run, text_encoder: nn.Module, ids: Tensor) -> KeptEmbeddings | None:
    """Where those of token ids (p, 77) are kept; None in a run whose text encoder learns.

    All that rounding depends on is part of the name, as is the base's digest.
    """
    spec = run.recipe.text_encoder
    if spec.train:
        return None
    dtype = next(text_encoder.parameters()).dtype
    parts = [_FORMAT, run.recipe.base.digest, spec.clip_skip, ids.device.type, dtype]
    text = "\n".join(map(str, [*parts, run.precision, tuple(ids.shape)]))
    key = hashlib.sha256(text.encode() + ids.cpu().numpy().tobytes()).hexdigest()
    return KeptEmbeddings(run.places.cache / "embeddings" / f"{key}.safetensors", run.note)


def _checksum(embeddings: Tensor) -> str:
    return hashlib.sha256(embeddings.view(torch.uint8).numpy().tobytes()).hexdigest()
