"""Trains the text encoder to understand captions, before there is a UNet.

As SD 1.x's CLIP, it has learned what words mean on pictures beforehand, and stays as it is while
the UNet learns. Here the truth of each picture is known, so its facts and joints are read off the
caption's states by attention, as a UNet reads them; what the caption does not say costs the same
whatever the encoder does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTextModel

from ..trainers.draws import derive
from .facts import QUESTIONS
from .miniature import CONTEXT
from .pretrain_data import Pool, choose
from .pretrain_judge import answer_loss, weighted_mean
from .pretrain_loop import Losses

_JOINTS = 18
_AWAY = 3.0  # weight of the joints' distance beside the answers
SPREAD = 0.5  # deviation of new embeddings


@torch.no_grad()
def initialise(text_encoder: CLIPTextModel) -> None:
    """Makes words as different as they are large: CLIP's own small embeddings (0.02) vanish beside
    what the layers add, and a UNet cannot tell a forest from an office then."""
    text_encoder.get_input_embeddings().weight.normal_(0, SPREAD)


class Reader(nn.Module):
    """Reads the answers to `QUESTIONS` and the joints off a caption's states; thrown away later.

    Each question has a query of its own for the words that answer it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(QUESTIONS) + 1, CONTEXT) * CONTEXT**-0.5)
        self.keys, self.values = nn.Linear(CONTEXT, CONTEXT), nn.Linear(CONTEXT, CONTEXT)
        self.answers = nn.ModuleList(nn.Linear(CONTEXT, len(a)) for a in QUESTIONS.values())
        self.joints = nn.Linear(CONTEXT, 2 * _JOINTS)

    def forward(self, states: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Logits by question and joints (n, 18, 2) in 0 to 1, of states (n, 77, d)."""
        weights = (self.keys(states) @ self.queries.T).float().softmax(1)  # (n, 77, questions + 1)
        found = torch.einsum("ntq,ntd->qnd", weights, self.values(states).float())
        logits = [answer(x).float() for answer, x in zip(self.answers, found[:-1], strict=True)]
        joints = self.joints(found[-1]).float().view(-1, _JOINTS, 2)
        return dict(zip(QUESTIONS, logits, strict=True)), joints


def draw(pools: Sequence[Pool], batch: int, step: int) -> dict[str, Tensor]:
    """ids (n, 77), facts (n, questions) and joints (n, 18, 3), all from the step's number."""
    rng = np.random.default_rng(derive(0, "text", step))
    pool = choose(pools, rng)
    rows = torch.from_numpy(rng.integers(len(pool), size=batch)).to(pool["ids"].device)
    said = torch.from_numpy(rng.integers(pool["ids"].shape[1], size=batch)).to(rows.device)
    return {
        "ids": pool["ids"][rows, said].long(),
        "facts": pool["facts"][rows].long(),
        "joints": pool["joints"][rows].float(),
    }


def losses(text_encoder: Any, reader: Reader, batch: dict[str, Tensor]) -> Losses:
    """The cross entropy of the answers and the distance of the joints that are seen."""
    answers, joints = reader(text_encoder(batch["ids"]).last_hidden_state)
    away = (joints - batch["joints"][..., :2]).abs().sum(-1)
    parts = {
        "answers": answer_loss(answers, batch["facts"]),
        "joints": weighted_mean(away, batch["joints"][..., 2]),
    }
    return {"loss": parts["answers"] + _AWAY * parts["joints"], **parts}
