"""Names: words that stand for a person, as celebrities' names do in Stable Diffusion.

In pretraining, half of the captions that mention a man or a woman contain a name. Its embedding is
not in the vocabulary but encodes the person, with a direction for each attribute and trait. A
random part is omitted, so a name may say much, little or nothing. The miniature thus learns that a
word can stand for a person, which is what DreamBooth requires of the rare token; no word of the
vocabulary itself names anybody.
"""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from .facts import QUESTIONS, TRAITS, WHO, trait_values, truth
from .miniature import CONTEXT
from .scene import Identity, Scene
from .words import NONSENSE, TOKEN, WORDS

NAMED = 0.5  # share of captions with a name
SIZE = 1.3  # scale at which a complete name's embedding is as long as a word's
_NAME = WORDS.index(TOKEN)  # its id is free: it is in no caption
_GENDERS = (WORDS.index("man"), WORDS.index("woman"))
_FIRST_NONSENSE, _LAST_NONSENSE = WORDS.index(NONSENSE[0]), WORDS.index(NONSENSE[-1])
# Without gender, which the caption states.
_ASKED = (*(question for question in WHO if question != "gender"), "glasses", "wrinkles")
_COLUMNS = [list(QUESTIONS).index(question) for question in _ASKED]
_WIDTHS = [len(QUESTIONS[question]) for question in _ASKED]
_LOCK = Lock()


@cache  # needed in every step
def directions() -> Tensor:
    """Orthonormal directions of answers and traits in embeddings, (answers + traits, CONTEXT)."""
    drawn = torch.randn(CONTEXT, CONTEXT, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr(drawn)[0][: sum(_WIDTHS) + len(TRAITS)].contiguous()


def embeddings(facts: Tensor, traits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Embeddings (n, CONTEXT) of people with these facts (n, questions) and traits (n, 26).

    With a `generator`, half of them are complete, and each of the others includes a random fraction
    of the facts and traits. UNKNOWN facts are omitted.
    """
    device = facts.device
    said = torch.ones(len(facts), len(_ASKED) + len(TRAITS), device=device)
    if generator is not None:
        draws = torch.rand(len(facts), 2, generator=generator, device=device)
        share = torch.where(draws[:, :1] < 0.5, 1.0, draws[:, 1:])
        said = (torch.rand(said.shape, generator=generator, device=device) < share).float()
    parts = []
    for k, (column, width) in enumerate(zip(_COLUMNS, _WIDTHS, strict=True)):
        answers = facts[:, column].long()
        part = one_hot(answers.clamp(min=0), width) * (answers >= 0)[:, None]
        parts.append(part * said[:, k : k + 1])
    parts.append(traits.float() * said[:, len(_ASKED) :])
    return SIZE * torch.cat(parts, 1) @ directions().to(device)


def with_names(ids: Tensor, generator: torch.Generator) -> Tensor:
    """Captions (n, 77) of which about NAMED get a name: for a nonsense word, or beside man, woman.

    Captions that mention neither a man nor a woman are unchanged.
    """
    draws = torch.rand(len(ids), 2, generator=generator, device=ids.device)
    gender = torch.isin(ids, torch.tensor(_GENDERS, device=ids.device))
    nonsense = (ids >= _FIRST_NONSENSE) & (ids <= _LAST_NONSENSE)
    spoken, empty = gender.any(1), nonsense.any(1)
    place = torch.where(
        empty, nonsense.int().argmax(1), gender.int().argmax(1) + (draws[:, 0] < 0.4).long()
    )[:, None]
    at = torch.arange(ids.shape[1], device=ids.device)[None]
    moved = ids.gather(1, at - ((at > place) & ~empty[:, None]).long())
    moved[:, -1] = ids[:, -1]
    changed = torch.where(at == place, _NAME, moved)
    return torch.where((spoken & (draws[:, 1] < NAMED))[:, None], changed, ids)


def states(text_encoder: Any, ids: Tensor, names: Tensor) -> Tensor:
    """The text encoder's states (n, 77, d); each caption's name is embedded as its `names` row."""

    def speak(_: Any, given: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        return torch.where((given[0] == _NAME)[..., None], names[:, None].to(rows), rows)

    with _LOCK:  # threads share the text encoder
        hook = text_encoder.get_input_embeddings().register_forward_hook(speak)
        try:
            found: Tensor = text_encoder(ids).last_hidden_state
        finally:
            hook.remove()
    return found


def told(
    text_encoder: Any, ids: Tensor, facts: Tensor, traits: Tensor, generator: torch.Generator
) -> Tensor:
    """The states (n, 77, d) of captions of people with these facts and traits, half with a name."""
    who = embeddings(facts, traits, generator)
    return states(text_encoder, with_names(ids, generator), who)


@torch.no_grad()
def name(text_encoder: Any, who: Identity) -> None:
    """Sets the rare token's embedding to the name of a person."""
    facts, traits = truth(Scene(who))[None], trait_values(who)[None]
    meaning = embeddings(torch.from_numpy(facts), torch.from_numpy(traits))[0]
    text_encoder.get_input_embeddings().weight[_NAME] = meaning
