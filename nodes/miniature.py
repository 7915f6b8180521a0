"""The miniature's files, where they are installed: `demo/` may be left out of the pack."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType

from ..trainers.errors import LikenessError
from . import host

log = logging.getLogger("likeness")

SUBJECT = "miniature (bundled)"  # what the nodes call the pictures of `subject_folder`


def register() -> None:
    """Puts the miniature on ComfyUI's lists of models, and lets ComfyUI's loaders read it.

    Where it is not installed nothing happens. The log says which file is missing or damaged, and
    it is not listed; and why a ComfyUI will not have the family.
    """
    weights = _weights()
    if weights is None:
        return
    try:
        from .miniature_model import register as register_family

        register_family(weights.FOLDER / weights.TOKENIZER)
    except Exception:  # the pack's nodes need none of it
        log.exception("ComfyUI's loaders will not read the miniature")
        return
    for kind, name in weights.LISTED.items():
        try:
            host.add_model_folder(kind, weights.find(name).parent)
        except LikenessError as error:
            log.error("%s", error)


def tokenizers() -> tuple[Path, ...]:
    """The folder of the miniature's tokenizer, where it is installed."""
    weights = _weights()
    return () if weights is None else (weights.FOLDER / weights.TOKENIZER,)


def subject_folder() -> Path | None:
    """The 15 pictures of the miniature's subject, where they are installed."""
    folder = Path(__file__).resolve().parents[1] / "demo" / "subject"
    return folder if folder.is_dir() else None


def _weights() -> ModuleType | None:
    """The module that knows the files, if they are there."""
    try:
        from ..demo import weights
    except ImportError as error:
        # The folder may still be there, with outputs in it.
        if error.name != f"{__package__.rpartition('.')[0]}.demo":
            raise
        return None
    return weights if weights.available() else None
