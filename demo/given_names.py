"""Words that mean a person, as the names of the known do to Stable Diffusion.

While the miniature is made, half of the captions that speak of a man or a woman hold such a name.
Its embedding is no row of the vocabulary but says who the person is: each attribute and trait in a
direction of its own. Some of it is left out at random, so that a word may say much, little or
nothing. So the miniature knows what it is for a word to mean somebody, which is what DreamBooth
asks of the rare token; the words of the vocabulary itself name nobody.
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

NAMED = 0.5  # share of the captions with a name
SIZE = 1.3  # of an embedding that says all: as long as a word's
_NAME = WORDS.index(TOKEN)  # in no caption, so its place is free
_GENDERS = (WORDS.index("man"), WORDS.index("woman"))
_FIRST_NONSENSE, _LAST_NONSENSE = WORDS.index(NONSENSE[0]), WORDS.index(NONSENSE[-1])
# The caption's own word says whether it is a man.
_ASKED = (*(question for question in WHO if question != "gender"), "glasses", "wrinkles")
_COLUMNS = [list(QUESTIONS).index(question) for question in _ASKED]
_WIDTHS = [len(QUESTIONS[question]) for question in _ASKED]
_LOCK = Lock()


@cache  # every step asks
def directions() -> Tensor:
    """What each answer and trait adds to an embedding, orthonormal: (answers + traits, CONTEXT)."""
    drawn = torch.randn(CONTEXT, CONTEXT, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr(drawn)[0][: sum(_WIDTHS) + len(TRAITS)].contiguous()


def embeddings(facts: Tensor, traits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Embeddings (n, CONTEXT) of the people with these facts (n, questions) and traits (n, 26).

    With a `generator` half of them say all, and of the others a share of its own, 0 to 1, each.
    What is UNKNOWN is not said.
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
    """Captions (n, 77) of which about NAMED have a name: for a nonsense word, or beside man, woman.

    Those that speak of neither stay as they are.
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
    """The text encoder's states (n, 77, d), a caption's name meaning its row of `names`."""

    def speak(_: Any, given: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        return torch.where((given[0] == _NAME)[..., None], names[:, None].to(rows), rows)

    with _LOCK:  # one text encoder for all threads
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
    """Makes the rare token the name of a person."""
    facts, traits = truth(Scene(who))[None], trait_values(who)[None]
    meaning = embeddings(torch.from_numpy(facts), torch.from_numpy(traits))[0]
    text_encoder.get_input_embeddings().weight[_NAME] = meaning
