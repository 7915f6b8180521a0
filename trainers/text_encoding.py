"""Prompts to token ids to the embeddings that the UNet attends to."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from .errors import RecipeError
from .tokenizer import truncated_words, warn_of_unknown_words

_log = logging.getLogger("likeness")
_checked_prompts: set[str] = set()  # prompts that were looked at for their length
_MAX_NAMED = 5  # cut prompts in one note


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    """Token ids of `prompts`, padded and cut to the tokenizer's length: (n, 77) int64.

    Prompts that are cut are logged, and so are words that the model is known never to have seen
    (`warn_of_unknown_words`): each once in this process.
    """
    ids: Tensor = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    warn_of_unknown_words(tokenizer, ids.flatten().tolist())
    new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in _checked_prompts]
    _checked_prompts.update(new)
    if cut := truncation_note(tokenizer, new):
        _log.warning("%s", cut)
    return ids


def truncation_note(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> str | None:
    """A note on the words that are cut off prompts of more than 77 tokens, else None."""
    cut = [(prompt, words) for prompt in prompts if (words := truncated_words(tokenizer, prompt))]
    if not cut:
        return None
    named = [
        f"{_shorten(words, 200)!r} of {_shorten(prompt, 60)!r}"
        for prompt, words in cut[:_MAX_NAMED]
    ]
    if more := len(cut) - len(named):
        named.append(f"and the end of {more} more")
    return (
        f"{len(cut)} of {len(prompts)} prompts are cut, because the text encoder reads "
        f"{tokenizer.model_max_length} tokens with start and end. It does not read "
        f"{'; '.join(named)}."
    )


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def encode_text(text_encoder: CLIPTextModel, ids: Tensor, clip_skip: int = 1) -> Tensor:
    """Embeddings of token ids (n, 77) -> (n, 77, width); differentiable.

    `clip_skip` 1 takes the last layer and 2 the one before it, each through the final layer
    norm, as ComfyUI's "CLIP Set Last Layer" does at -1 and -2.

    Raises:
        RecipeError: the text encoder has fewer layers than `clip_skip`.
    """
    layers = text_encoder.config.num_hidden_layers
    if clip_skip > layers:
        raise RecipeError(f"text_encoder.clip_skip is {clip_skip}, but there are {layers} layers.")
    if clip_skip == 1:
        return text_encoder(ids).last_hidden_state
    hidden = text_encoder(ids, output_hidden_states=True).hidden_states[-clip_skip]
    return final_layer_norm(text_encoder)(hidden)  # (n, 77, width)


def final_layer_norm(text_encoder: CLIPTextModel) -> torch.nn.Module:
    """The last layer norm: inside ``text_model`` before transformers 5."""
    return getattr(text_encoder, "text_model", text_encoder).final_layer_norm
