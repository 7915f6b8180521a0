"""Where a run's inputs and outputs lie on one machine."""

from __future__ import annotations

from pathlib import Path

from .recipe import Part


class Places(Part):
    """Where a run's inputs and outputs lie on this machine; never part of a shared file.

    `base` is a checkpoint file or a diffusers folder, `photos` a folder, `class_images` the
    user's own set or None, `tokenizers` the folders to try for the CLIP tokenizer, in order;
    `runs`, `loras`, `checkpoints` and `cache` are written to.
    """

    base: Path
    photos: Path
    class_images: Path | None = None
    tokenizers: tuple[Path, ...] = ()
    runs: Path
    loras: Path
    checkpoints: Path
    cache: Path
