"""Prompts to token ids, and token ids to the embeddings that the UNet attends to."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from .errors import RecipeError
from .tokenizer import CHUNK_LENGTH, CHUNK_TOKENS, truncated_words, warn_of_unknown_words

_log = logging.getLogger("likeness")
_checked: set[tuple[str, int]] = set()  # prompts whose length was checked against a limit
_MAX_NAMED = 5  # truncated prompts in one note


def tokenize(
    tokenizer: CLIPTokenizer, prompts: Sequence[str], max_tokens: int = CHUNK_TOKENS
) -> Tensor:
    """Token ids of `prompts` in chunks of 77, each with its start and end: (n, 77 k) int64.

    As in ComfyUI, a prompt of more than 75 tokens is split into chunks, up to `max_tokens` (a
    multiple of 75), and the chunks' embeddings are concatenated. All prompts get the same number k
    of chunks by repeating their own: without dropout, cross-attention to a repeated context is the
    same.

    Logs truncated prompts, and words that the model is known never to have seen
    (`warn_of_unknown_words`), each once per process.
    """
    found = word_ids(tokenizer, prompts, max_tokens)
    _warn_once(tokenizer, dict(zip(prompts, found, strict=True)), max_tokens)
    chunks = [_chunks(tokenizer, ids) for ids in found]
    count = math.lcm(*map(len, chunks))
    return torch.tensor([own * (count // len(own)) for own in chunks]).flatten(1)  # (n, 77 k)


def word_ids(
    tokenizer: CLIPTokenizer, prompts: Sequence[str], max_tokens: int = CHUNK_TOKENS
) -> list[list[int]]:
    """Token ids of each prompt, truncated to `max_tokens`, without start, end and padding."""
    found = tokenizer(list(prompts), add_special_tokens=False, verbose=False).input_ids
    return [ids[:max_tokens] for ids in found]


def _chunks(tokenizer: CLIPTokenizer, ids: list[int]) -> list[list[int]]:
    """A prompt's ids in chunks of 77, at least one."""
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    parts = [ids[i : i + CHUNK_TOKENS] for i in range(0, len(ids), CHUNK_TOKENS)] or [[]]
    return [[start, *part, end] + [pad] * (CHUNK_TOKENS - len(part)) for part in parts]


def _warn_once(tokenizer: CLIPTokenizer, found: Mapping[str, list[int]], max_tokens: int) -> None:
    """Logs what is wrong with prompts that were not checked before; `found` are their ids."""
    new = [prompt for prompt in found if (prompt, max_tokens) not in _checked]
    _checked.update((prompt, max_tokens) for prompt in new)
    warn_of_unknown_words(tokenizer, [found[prompt] for prompt in new])
    if cut := truncation_note(tokenizer, new, max_tokens):
        _log.warning("%s", cut)


def truncation_note(
    tokenizer: CLIPTokenizer, prompts: Sequence[str], max_tokens: int = CHUNK_TOKENS
) -> str | None:
    """A note on the words truncated from prompts of more than `max_tokens` tokens, else None."""
    truncated = {prompt: truncated_words(tokenizer, prompt, max_tokens) for prompt in prompts}
    cut = [(prompt, words) for prompt, words in truncated.items() if words]
    if not cut:
        return None
    named = [
        f"{_shorten(words, 200)!r} of {_shorten(prompt, 60)!r}"
        for prompt, words in cut[:_MAX_NAMED]
    ]
    if more := len(cut) - len(named):
        named.append(f"and the end of {more} more")
    return (
        f"{len(cut)} of {len(prompts)} prompts are truncated after {max_tokens} tokens. The text "
        f"encoder ignores {'; '.join(named)}."
    )


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def encode_text(text_encoder: CLIPTextModel, ids: Tensor, clip_skip: int = 1) -> Tensor:
    """Embeddings of token ids (n, 77 k) -> (n, 77 k, width), by chunks of 77; differentiable.

    They are on the device of the ids; the text encoder computes on its own.
    `clip_skip` 1 uses the last layer and 2 the one before, each followed by the final layer norm,
    as ComfyUI's "CLIP Set Last Layer" does at -1 and -2.

    Raises:
        RecipeError: the text encoder has fewer layers than `clip_skip`.
    """
    layers = text_encoder.config.num_hidden_layers
    if clip_skip > layers:
        raise RecipeError(
            f"text_encoder.clip_skip is {clip_skip}, but the text encoder has {layers} layers."
        )
    chunks = ids.reshape(-1, CHUNK_LENGTH).to(text_encoder.device)  # (n k, 77)
    if clip_skip == 1:
        states = text_encoder(chunks).last_hidden_state
    else:
        hidden = text_encoder(chunks, output_hidden_states=True).hidden_states[-clip_skip]
        states = final_layer_norm(text_encoder)(hidden)
    return states.reshape(*ids.shape, -1).to(ids.device)  # (n, 77 k, width)


def final_layer_norm(text_encoder: CLIPTextModel) -> torch.nn.Module:
    """The final layer norm, which is inside ``text_model`` before transformers 5."""
    return getattr(text_encoder, "text_model", text_encoder).final_layer_norm
