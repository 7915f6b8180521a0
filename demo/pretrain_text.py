"""Trains the text encoder to understand captions, before the UNet.

Like SD 1.x's CLIP, it is trained beforehand and frozen while the UNet trains. The ground truth of
each image is known here, so facts and joints are predicted from the caption's states by
attention, as a UNet reads them. What the caption does not say is a constant loss. Names encode
people (see `given_names`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTextModel

from ..trainers.rng import derive_seed
from . import given_names
from .facts import QUESTIONS, TRAITS
from .miniature import CONTEXT
from .pretrain_data import Pool, choose
from .pretrain_judge import answer_loss, weighted_mean
from .pretrain_loop import Losses

_JOINTS = 18
_AWAY = 3.0  # weight of the joints' distance relative to the answers
_OFF = 1.0  # weight of the traits' squared errors
SPREAD = 0.5  # standard deviation of new embeddings


@torch.no_grad()
def initialise(text_encoder: CLIPTextModel) -> None:
    """Initialises embeddings with a large deviation: CLIP's 0.02 vanishes beside what the layers
    add, and a UNet could not tell a forest from an office."""
    text_encoder.get_input_embeddings().get_parameter("weight").normal_(0, SPREAD)


class Reader(nn.Module):
    """Predicts answers to `QUESTIONS`, joints and traits from a caption's states; training only.

    Each question has its own attention query.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(QUESTIONS) + 2, CONTEXT) * CONTEXT**-0.5)
        self.keys, self.values = nn.Linear(CONTEXT, CONTEXT), nn.Linear(CONTEXT, CONTEXT)
        self.answers = nn.ModuleList(nn.Linear(CONTEXT, len(a)) for a in QUESTIONS.values())
        self.joints = nn.Linear(CONTEXT, 2 * _JOINTS)
        self.traits = nn.Linear(CONTEXT, len(TRAITS))

    def forward(self, states: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Logits by question, joints (n, 18, 2), 0 to 1, traits (n, 26), of states (n, 77, d)."""
        weights = (self.keys(states) @ self.queries.T).float().softmax(1)  # (n, 77, questions + 2)
        found = torch.einsum("ntq,ntd->qnd", weights, self.values(states).float())
        logits = [answer(x).float() for answer, x in zip(self.answers, found[:-2], strict=True)]
        joints = self.joints(found[-2]).float().view(-1, _JOINTS, 2)
        return dict(zip(QUESTIONS, logits, strict=True)), joints, self.traits(found[-1]).float()


def draw(pools: Sequence[Pool], batch: int, step: int) -> dict[str, Tensor]:
    """A batch determined by the step: ids (n, 77), facts, joints (n, 18, 3), traits (n, 26)."""
    rng = np.random.default_rng(derive_seed(0, "text", step))
    pool = choose(pools, rng)
    rows = torch.from_numpy(rng.integers(len(pool), size=batch)).to(pool["ids"].device)
    said = torch.from_numpy(rng.integers(pool["ids"].shape[1], size=batch)).to(rows.device)
    return {
        "ids": pool["ids"][rows, said].long(),
        "facts": pool["facts"][rows].long(),
        "joints": pool["joints"][rows].float(),
        "traits": pool["traits"][rows].float(),
    }


def losses(
    text_encoder: Any, reader: Reader, batch: dict[str, Tensor], generator: torch.Generator
) -> Losses:
    """Cross entropy of answers, distance of visible joints, squared error of traits."""
    facts, traits = batch["facts"], batch["traits"]
    states = given_names.told(text_encoder, batch["ids"], facts, traits, generator)
    answers, joints, traits = reader(states)
    away = (joints - batch["joints"][..., :2]).abs().sum(-1)
    parts = {
        "answers": answer_loss(answers, batch["facts"]),
        "joints": weighted_mean(away, batch["joints"][..., 2]),
        "traits": (traits - batch["traits"]).square().mean(),
    }
    loss = parts["answers"] + _AWAY * parts["joints"] + _OFF * parts["traits"]
    return {"loss": loss, **parts}
