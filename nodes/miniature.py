"""The miniature's files, if installed: `demo/` may be left out of the pack."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType

from ..trainers.errors import LikenessError
from . import host

log = logging.getLogger("likeness")

SUBJECT = "miniature (bundled)"  # the choice of Subject's folder widget for `subject_folder`


def register() -> None:
    """Adds the miniature to ComfyUI's model lists and lets ComfyUI's loaders read it.

    A no-op if it is not installed. A missing or damaged file is logged and not listed; a failure to
    register the model family is logged.
    """
    weights = _weights()
    if weights is None:
        return
    try:
        from .miniature_model import register as register_family

        register_family(weights.FOLDER / weights.TOKENIZER)
    except Exception:  # the nodes work without it
        log.exception("ComfyUI's loaders cannot read the miniature")
        return
    for kind, name in weights.LISTED.items():
        try:
            host.add_model_folder(kind, weights.find(name).parent)
        except LikenessError as error:
            log.error("%s", error)


def tokenizers() -> tuple[Path, ...]:
    """The folder of the miniature's tokenizer, if installed."""
    weights = _weights()
    return () if weights is None else (weights.FOLDER / weights.TOKENIZER,)


def subject_folder() -> Path | None:
    """The folder of the 15 images of the miniature's subject, if installed."""
    folder = Path(__file__).resolve().parents[1] / "demo" / "subject"
    return folder if folder.is_dir() else None


def name_of(photos: Path) -> str:
    """The name of runs on the miniature's images; "" for other folders, which have their own."""
    return "miniature" if photos == subject_folder() else ""


def _weights() -> ModuleType | None:
    """The module `demo.weights`, if it and its files are installed."""
    try:
        from ..demo import weights
    except ImportError as error:
        # A `demo` folder may remain, with only outputs in it.
        if error.name != f"{__package__.rpartition('.')[0]}.demo":
            raise
        return None
    return weights if weights.available() else None
