"""Finds the CLIP tokenizer that belongs to a base model; no network is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import BaseModelError

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

LENGTH = 77  # tokens of a prompt, with its start and end
_ON_HUB = (
    ("openai/clip-vit-large-patch14", ""),
    ("stable-diffusion-v1-5/stable-diffusion-v1-5", "tokenizer"),
)


def find_tokenizer(base: Path, folders: Sequence[Path] = ()) -> Path:
    """Folder of the tokenizer for the base model at `base`.

    Tried in this order: ``<stem>_tokenizer/`` beside a single file or ``tokenizer/`` inside a
    diffusers folder, each of `folders`, then what the local hub cache has of CLIP ViT-L/14 and
    of SD 1.5.

    Raises:
        BaseModelError: there is none; the message lists every place that was tried.
    """
    tried = []
    for place in _places(Path(base), folders):
        if is_tokenizer(place):
            return place
        tried.append(str(place))
    for repository, inside in _ON_HUB:
        cached = _in_hub_cache(repository, inside)
        if cached is not None:
            return cached
        tried.append(f"the local hub cache of {repository}")
    lines = "\n".join(f"- {place}" for place in tried)
    raise BaseModelError(
        f"No CLIP tokenizer (vocab.json and merges.txt) was found. Tried:\n{lines}\n"
        "Put one into the first of these, or name its folder."
    )


def is_tokenizer(folder: Path) -> bool:
    """Whether `folder` has a CLIP vocabulary and its merges."""
    return (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP tokenizer of a folder. Its length is 77, whatever the folder says.

    Raises:
        BaseModelError: the files cannot be read.
    """
    from transformers import CLIPTokenizer

    try:
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(
            str(folder), local_files_only=True, model_max_length=LENGTH
        )
    except Exception as error:  # the tokenizers library raises plain Exception
        raise BaseModelError(f"The tokenizer in {folder} cannot be read: {error}") from error
    return tokenizer


def _places(base: Path, folders: Sequence[Path]) -> Iterator[Path]:
    yield base / "tokenizer" if base.is_dir() else base.parent / f"{base.stem}_tokenizer"
    yield from (Path(folder) for folder in folders)


def _in_hub_cache(repository: str, inside: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, f"{inside}/vocab.json" if inside else "vocab.json")
    if not isinstance(found, str):
        return None
    return Path(found).parent if is_tokenizer(Path(found).parent) else None
