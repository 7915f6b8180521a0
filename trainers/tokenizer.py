"""Finds the CLIP tokenizer that belongs to a base model, without network access."""

from __future__ import annotations

import logging
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import BaseModelError, RunFailed
from .files import write_atomic

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_log = logging.getLogger("likeness")

CHUNK_TOKENS = 75  # that CLIP reads at once, besides a start and an end
CHUNK_LENGTH = CHUNK_TOKENS + 2
_CLIP_VOCAB_SIZE = 49_408  # of CLIP ViT-L/14, as in SD 1.x
_TOKENIZER_FILES = (
    *("vocab.json", "merges.txt", "tokenizer.json", "added_tokens.json"),
    *("tokenizer_config.json", "special_tokens_map.json"),
)
_WORD_END = "</w>"  # CLIP's end-of-word marker
_HUB_REPOSITORIES = (
    ("openai/clip-vit-large-patch14", ""),
    ("stable-diffusion-v1-5/stable-diffusion-v1-5", "tokenizer"),
)
_warned: set[str] = set()  # unknown words already logged

UNKNOWN_WORDS_NOTE = "The base model never saw these words in a caption: %s"


def find_tokenizers(base: Path, folders: Sequence[Path] = ()) -> list[Path]:
    """Folders of tokenizers that may belong to the base model at `base`, the likeliest first.

    ``<stem>_tokenizer/`` beside a single file or ``tokenizer/`` inside a diffusers folder, then
    `folders`, then the local hub cache of CLIP ViT-L/14 and of SD 1.5.

    Raises:
        BaseModelError: there is none; the message lists every place that was tried.
    """
    places = list(_candidate_folders(Path(base), folders))
    cached = [_in_hub_cache(repository, inside) for repository, inside in _HUB_REPOSITORIES]
    found = [place for place in (*places, *cached) if place is not None and is_tokenizer(place)]
    if found:
        return found
    tried = [str(place) for place in places]
    tried += [f"the local hub cache of {repository}" for repository, _ in _HUB_REPOSITORIES]
    lines = "\n".join(f"- {place}" for place in tried)
    raise BaseModelError(
        "No CLIP tokenizer (vocab.json and merges.txt, or tokenizer.json) was found. "
        f"Tried:\n{lines}\n"
        "Put one into the first of these folders (or, in a terminal, give its folder as "
        "--tokenizer)."
    )


def is_tokenizer(folder: Path) -> bool:
    """Whether `folder` has a CLIP vocabulary and its merges, or both in ``tokenizer.json``.

    transformers 5 writes only ``tokenizer.json``.
    """
    return _has_vocabulary(folder) or (folder / "tokenizer.json").is_file()


def _has_vocabulary(folder: Path) -> bool:
    return (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Loads the CLIP tokenizer of a folder; its length is 77, whatever the folder's config says.

    Raises:
        BaseModelError: the files cannot be read.
    """
    from transformers import CLIPTokenizer, CLIPTokenizerFast  # type: ignore[attr-defined]

    # Before transformers 5, only the fast tokenizer reads tokenizer.json.
    kind = CLIPTokenizer if _has_vocabulary(folder) else CLIPTokenizerFast
    try:
        tokenizer: CLIPTokenizer = kind.from_pretrained(
            str(folder), local_files_only=True, model_max_length=CHUNK_LENGTH
        )
    except Exception as error:  # the tokenizers library raises plain Exception
        raise BaseModelError(f"The tokenizer in {folder} cannot be read: {error}") from error
    return tokenizer


def save_tokenizer_beside(checkpoint: Path, tokenizer: CLIPTokenizer) -> None:
    """Copies a base model's own tokenizer to ``<stem>_tokenizer/`` beside a checkpoint made of it.

    CLIP's is not copied: every program has it. Raises RunFailed if the folder cannot be written.
    """
    if len(tokenizer) == _CLIP_VOCAB_SIZE:
        return
    folder = checkpoint.with_name(f"{checkpoint.stem}_tokenizer")
    try:
        for name in _TOKENIZER_FILES:
            if (file := Path(tokenizer.name_or_path, name)).is_file():
                write_atomic(folder / name, file.read_bytes())
    except OSError as error:
        raise RunFailed(f"{folder} cannot be written: {error.strerror}.") from error


def truncated_words(tokenizer: CLIPTokenizer, prompt: str, max_tokens: int) -> str:
    """The end of a prompt beyond `max_tokens`, in whole words; "" if it fits."""
    words = re.findall(r"[^\s,]+|,", prompt)

    def length(count: int) -> int:
        text = " ".join(words[:count])
        return len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    if length(len(words)) <= max_tokens:  # as most prompts are
        return ""
    read = bisect_right(range(len(words)), max_tokens, key=length) - 1
    return " ".join(words[read:]).replace(" ,", ",").strip(", ")


def unknown_words(tokenizer: CLIPTokenizer, prompts: Iterable[Iterable[int]]) -> list[str]:
    """The words in prompts' token ids that the base model never saw, each once, in order.

    Only whole-word tokenizers tell, by ``known_words`` in their tokenizer_config.json: that many of
    the first ids are words, and any other word is in pieces. For CLIP's own there are none.
    """
    known = tokenizer.init_kwargs.get("known_words")
    if not isinstance(known, int):
        return []
    words: dict[str, None] = {}
    special = set(tokenizer.all_special_ids)
    for ids in prompts:
        pieces: list[int] = []  # of a word; one truncated at the prompt's end is left out
        for number in ids:
            if number in special:  # also between two chunks, in the middle of a word
                continue
            pieces.append(number)
            if str(tokenizer.convert_ids_to_tokens(number)).endswith(_WORD_END):
                if len(pieces) > 1 or number >= known:
                    words[str(tokenizer.decode(pieces)).strip()] = None
                pieces = []
    return list(words)


def warn_of_unknown_words(tokenizer: CLIPTokenizer, prompts: Iterable[Iterable[int]]) -> None:
    """Logs the words that the base model never saw, each once per process."""
    new = [word for word in unknown_words(tokenizer, prompts) if word not in _warned]
    if new:
        _warned.update(new)
        _log.warning(UNKNOWN_WORDS_NOTE, ", ".join(new))


def _candidate_folders(base: Path, folders: Sequence[Path]) -> Iterator[Path]:
    yield base / "tokenizer" if base.is_dir() else base.parent / f"{base.stem}_tokenizer"
    yield from (Path(folder) for folder in folders)


def _in_hub_cache(repository: str, inside: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in ("vocab.json", "tokenizer.json"):
        found = try_to_load_from_cache(repository, f"{inside}/{name}" if inside else name)
        if isinstance(found, str):
            return Path(found).parent
    return None
