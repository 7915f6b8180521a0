"""Agreement of the two judges' scores, what they reject, and how they score the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..trainers.base_model import load_base
from . import given_names, measures, pretrain_judge, weights
from .casting import random_identity, random_scene
from .drawn import scenes_for
from .facts import QUESTIONS, asked
from .judge import Judge, identity_match, prompt_match, reference_for, rejected
from .pretrain_data import Pool
from .pretrain_vae import to_pixels, to_unit
from .scene import Identity, Scene
from .subject import subject_scenes
from .world import draw

PEOPLE, TOKENS = 5, 50
_FIRST = 8000  # number of the first person; not used in other measurements
_KIND = list(QUESTIONS).index("kind")
Images = NDArray[np.uint8]


def lines(
    judges: Sequence[Judge], pool: Pool, drawn: Images, captions: Sequence[str], folder: Path
) -> list[str]:
    """A sentence for each measurement.

    `pool` holds held-out drawings, `drawn` the base's images of `captions`. Raises
    BaseModelError.
    """
    model = load_base(weights.find(weights.CHECKPOINT, folder))
    return [
        *_rejects(judges, pool),
        _own_captions(judges, drawn, captions),
        _strangers(judges, model),
        _agreement([_scores(judges, model, number) for number in range(_FIRST, _FIRST + PEOPLE)]),
    ]


def _rejects(judges: Sequence[Judge], pool: Pool) -> list[str]:
    """Rejection rates of each judge for held-out drawings, intact and corrupted in each way."""
    fit = pool["facts"][:, _KIND] == 0
    whole = pool["pixels"][fit]
    batch = {"images": to_unit(whole), "facts": pool["facts"][fit].long()}
    pretrain_judge.spoil_some(
        batch, np.random.default_rng(0), torch.Generator().manual_seed(0), share=1.0
    )
    unfit, found = to_pixels(batch["images"]), []
    for name, judge in zip(("judge", "second judge"), judges, strict=True):
        ways = [
            f"{100 * rejected(judge(unfit[n::3])).mean():.0f} % of {way}"
            for n, way in enumerate(pretrain_judge.SPOILED)
        ]
        mistaken = 100 * rejected(judge(whole.numpy())).mean()
        found.append(f"{name} rejects {', '.join(ways)}, and {mistaken:.1f} % of intact drawings.")
    return found


def _own_captions(judges: Sequence[Judge], drawn: Images, captions: Sequence[str]) -> str:
    """How well the base draws its own captions, including the person."""
    shares = []
    for judge in judges:
        matches = [
            prompt_match(judge(image[None]), caption, asked)[0]
            for image, caption in zip(drawn, captions, strict=True)
        ]
        shares.append(f"{100 * np.mean(matches):.0f} %")
    return (
        f"Of what its {len(captions)} captions ask for, including the person, the base's images "
        f"show {shares[0]} according to the judge, {shares[1]} according to the second judge."
    )


def _strangers(judges: Sequence[Judge], model: Any) -> str:
    """Whether the untrained rare token gives people as different as strangers."""
    words = measures.Words()
    text = words.fill(measures.TOKEN_PROMPT)
    tokens = measures.draw(model, [text] * TOKENS, range(TOKENS))
    rng = np.random.default_rng((_FIRST, 1))
    men = [random_identity(rng, "man") for _ in range(TOKENS)]
    strangers = _images([random_scene(rng, man) for man in men])
    same = _images([random_scene(rng, men[0]) for _ in range(TOKENS)])
    means = [_likeness(judges[0], shown) for shown in (tokens, strangers, same)]
    return (
        f"The mean similarity (cosine of the judge's identities) is {means[0]:.2f} among {TOKENS} "
        f"images of `{text}` by the base, {means[1]:.2f} among drawings of {TOKENS} men, and "
        f"{means[2]:.2f} among drawings of one man."
    )


def _likeness(judge: Judge, shown: Images) -> float:
    identity = judge(shown).identity
    likeness = identity @ identity.T
    return float(likeness[~torch.eye(len(identity), dtype=torch.bool)].mean())


def _images(scenes: Sequence[Scene]) -> Images:
    canvas = measures.Canvas()
    return np.stack([draw(s, canvas.width, canvas.height) for s in scenes])


@dataclass(frozen=True)
class Scores:
    """The identity match of images by each judge, (judges, n), by the images' source."""

    base: NDArray[np.float64]
    named: NDArray[np.float64]
    drawn: NDArray[np.float64]


def _scores(judges: Sequence[Judge], model: Any, number: int) -> Scores:
    """Both judges' scores of six images of a person from each source: the base, the base with the
    token as the person's name, and the world's own drawings.
    """
    rng = np.random.default_rng((number, 3))
    who: Identity = random_identity(rng, "man")
    photos = _images(subject_scenes(who, number))
    prompts = list(measures.Words().study().values())
    seeds = [number * 10 + k for k in range(len(prompts))]
    base = measures.draw(model, prompts, seeds)
    rows = model.text_encoder.get_input_embeddings().weight
    before = rows.detach().clone()
    given_names.name(model.text_encoder, who)
    named = measures.draw(model, prompts, seeds)
    with torch.no_grad():
        rows.copy_(before)
    drawn = _images([scenes_for(prompt, who, 1, rng)[0] for prompt in prompts])
    references = [reference_for(judge, who, photos) for judge in judges]
    return Scores(*(
        np.stack([identity_match(judge(shown), one)
                  for judge, one in zip(judges, references, strict=True)])
        for shown in (base, named, drawn)
    ))  # fmt: skip


def _agreement(people: Sequence[Scores]) -> str:
    """Compares the two judges' identity matches."""
    kinds = {
        "for the base": np.concatenate([one.base for one in people], 1),
        "for the base with the token as a name": np.concatenate([one.named for one in people], 1),
        "for the world's drawings": np.concatenate([one.drawn for one in people], 1),
    }
    means = [f"{of[0].mean():.2f} and {of[1].mean():.2f} {kind}" for kind, of in kinds.items()]
    both = np.concatenate(list(kinds.values()), 1)
    people_means = np.concatenate(
        [np.stack([o.base.mean(1), o.named.mean(1), o.drawn.mean(1)], 1) for o in people], 1
    )
    images, of_means = (np.corrcoef(values)[0, 1] for values in (both, people_means))
    return (
        f"Identity match of {len(people)} people's images by the judge and by the second judge: "
        f"{'; '.join(means)}. Correlation over {both.shape[1]} images {images:.2f}, over the "
        f"{people_means.shape[1]} means of six {of_means:.2f}."
    )
