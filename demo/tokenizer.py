"""The miniature's tokenizer: a CLIP tokenizer folder with a small vocabulary of whole words.

It is an ordinary byte-pair tokenizer, so transformers' CLIPTokenizer and ComfyUI's SD 1.x one both
load it. Its merges are chosen so that each word of `WORDS` becomes one token, whose id is its index
in the list. Any other word is split into pieces, down to letters.
"""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from .words import WORDS, split

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77  # tokens of a prompt, including start and end
_LAST = "</w>"  # CLIP's suffix of a word's last piece

Merges = dict[tuple[str, str], int]  # pair of pieces -> rank, lowest first


@lru_cache
def vocabulary() -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    """The pieces with their ids, and the merges in order.

    Ids: the words of `WORDS` in order, all other pieces, then START and END as the last two.
    """
    ranks: Merges = {}
    for word in WORDS:
        # A new merge ranks last, so it cannot break words that are already whole.
        while len(pieces := _pieces(word, ranks)) > 1:
            ranks[pieces[0], pieces[1]] = len(ranks)
    letters = [letter + mark for mark in ("", _LAST) for letter in _byte_letters()]
    joined = [first + second for first, second in ranks]
    words = [word + _LAST for word in WORDS]
    known = dict.fromkeys((*words, *letters, *joined, START, END))
    return {piece: place for place, piece in enumerate(known)}, tuple(ranks)


def encode(text: str) -> list[int]:
    """Token ids of a caption without START and END, as by CLIPTokenizer.

    Only for text of ASCII letters, digits and punctuation.
    """
    return [number for word in split(text) for number in _word_ids(word)]


@lru_cache(maxsize=4096)
def _word_ids(word: str) -> tuple[int, ...]:
    ids, merges = vocabulary()
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    return tuple(ids[piece] for piece in _pieces(word, ranks))


def write_tokenizer(folder: Path) -> Path:
    """Writes vocab.json, merges.txt and the settings to `folder`; returns it."""
    ids, merges = vocabulary()
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LENGTH,
        "do_lower_case": True,
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
        "known_words": len(WORDS),  # read by `trainers.tokenizer.unknown_words`
    }
    marks = {key: value for key, value in settings.items() if key.endswith("_token")}
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "vocab.json", json.dumps(ids, ensure_ascii=False))
    _write(folder / "merges.txt", "\n".join(lines))
    _write(folder / "tokenizer_config.json", json.dumps(settings, indent=2))
    _write(folder / "special_tokens_map.json", json.dumps(marks, indent=2))
    return folder


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _pieces(word: str, ranks: Merges) -> list[str]:
    """Byte-pair encoding of one word (arXiv:1508.07909): merges the lowest-ranked pair first."""
    pieces = [*word[:-1], word[-1] + _LAST]
    while len(pieces) > 1:
        pairs = list(pairwise(pieces))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        joined: list[str] = []
        for piece in pieces:
            if joined and (joined[-1], piece) == best:
                joined[-1] += piece
            else:
                joined.append(piece)
        pieces = joined
    return pieces


def _byte_letters() -> list[str]:
    """The 256 characters that CLIP, like GPT-2, uses for bytes; printable ones are unchanged."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + k) for k in range(len(others))]
