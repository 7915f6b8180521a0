"""`likeness demo judge`: the judges' accuracy, and how often they agree.

Evaluated on held-out drawings with known ground truth, and on a hundred images drawn by the
miniature with human labels in labels.json, by somebody who knew the captions but not the judges'
answers. `judge_scores` compares the judges' scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..trainers.base_model import load_base
from ..trainers.errors import BaseModelError
from . import judge_scores, measures, pretrain_judge, weights
from .captions import caption
from .casting import random_scene
from .facts import QUESTIONS, UNKNOWN
from .judge import Judge, load_judge
from .pretrain_vae import tiled

LABELS = Path(__file__).with_name("labels.json")
COUNT = 100
_SEED, _BATCH, _SHEET = 900_000, 10, 20
# question -> answer, or several separated by |; what a person could not tell is missing
Answers = dict[str, str]


def captions(count: int = COUNT) -> list[str]:
    """Captions of held-out scenes."""
    rngs = [np.random.default_rng((_SEED, number)) for number in range(count)]
    return [caption(random_scene(rng), rng) for rng in rngs]


def images(folder: Path = weights.FOLDER) -> NDArray[np.uint8]:
    """The miniature's images of `captions`, (100, 128, 96, 3). Raises BaseModelError."""
    model, asked = load_base(weights.find(weights.CHECKPOINT, folder)), captions()
    parts = [slice(first, first + _BATCH) for first in range(0, COUNT, _BATCH)]
    seeds = range(_SEED, _SEED + COUNT)
    return np.concatenate([measures.draw(model, asked[part], seeds[part]) for part in parts])


def write_images(out: Path, folder: Path = weights.FOLDER) -> None:
    """Writes `images` on sheets of 20, in rows of 5, enlarged three times."""
    shown = images(folder).repeat(3, axis=1).repeat(3, axis=2)
    out.mkdir(parents=True, exist_ok=True)
    for first in range(0, COUNT, _SHEET):
        sheet = Image.fromarray(tiled(shown[first : first + _SHEET], 5))
        sheet.save(out / f"{first:02}-{first + _SHEET - 1:02}.png")


def read_labels(folder: Path = weights.FOLDER, path: Path = LABELS) -> list[Answers]:
    """The human labels of each of `images`.

    Raises BaseModelError for labels of another miniature, or with unknown answers.
    """
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored["checkpoint"] != weights.digest(weights.find(weights.CHECKPOINT, folder)):
        raise BaseModelError(f"{path.name} labels images of another miniature than {folder}'s.")
    labels: list[Answers] = stored["labels"]
    for number, label in enumerate(labels):
        wrong = [
            f"{question}: {answer}"
            for question, answers in label.items()
            for answer in answers.split("|")
            if answer not in QUESTIONS.get(question, ())
        ]
        if wrong:
            raise BaseModelError(f"{path.name}, image {number}: unknown answer {', '.join(wrong)}.")
    return labels


@dataclass(frozen=True)
class Asked:
    """A judge's most likely answers, (n,) for each question."""

    said: Mapping[str, NDArray[np.int64]]

    def right(self, question: str, labels: Sequence[Answers]) -> tuple[int, int]:
        """The number of images answered as labelled, and the number of labelled ones."""
        told = [n for n, label in enumerate(labels) if question in label]
        answers = QUESTIONS[question]
        hits = [answers[self.said[question][n]] in labels[n][question].split("|") for n in told]
        return sum(hits), len(told)

    def agrees(self, question: str, other: Asked) -> float:
        """The fraction of images to which another judge gives the same answer."""
        return float((self.said[question] == other.said[question]).mean())


def ask(judge: Judge, shown: NDArray[np.uint8]) -> Asked:
    """The answers of a judge to all questions about images (n, h, w, 3)."""
    answers = judge(shown).answers
    return Asked({question: answers[question].argmax(1).numpy() for question in QUESTIONS})


def report(folder: Path = weights.FOLDER) -> str:
    """The report in Markdown. Raises BaseModelError."""
    judges = [load_judge(weights.find(name, folder)) for name in _JUDGES]
    pool = pretrain_judge.held_out(torch.device("cpu"))
    known = [pretrain_judge.evaluate(judge.network, pool) for judge in judges]
    labels, drawn = read_labels(folder), images(folder)
    first, second = (ask(judge, drawn) for judge in judges)
    rows = [["question", "commonest answer", "held-out drawings", "second judge", "by eye",
             "second judge", "agree"]]  # fmt: skip
    rows.append(["---"] * len(rows[0]))
    for question in QUESTIONS:
        rows.append([
            question,
            f"{100 * commonest(pool['facts'][:, list(QUESTIONS).index(question)]):.1f} %",
            *(f"{100 * scores['answers'][question]:.1f} %" for scores in known),
            *(_share(*asked.right(question, labels)) for asked in (first, second)),
            f"{100 * first.agrees(question, second):.0f} %",
        ])  # fmt: skip
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    others = [*_others(known), *judge_scores.lines(judges, pool, drawn, captions(), folder)]
    return f"{table}\n\n" + "\n".join(f"* {line}" for line in others) + "\n"


def commonest(facts: Tensor) -> float:
    """Frequency of the most common answer: the accuracy of a judge that always gives it."""
    known = facts[facts != UNKNOWN].long()
    return float(known.bincount().max()) / len(known) if len(known) else 0.0


_JUDGES = (weights.JUDGE, weights.SECOND_JUDGE)


def _share(hits: int, count: int) -> str:
    return f"{hits} of {count}" if count else "–"


def _others(known: Sequence[Mapping[str, Any]]) -> list[str]:
    """The other measurements on held-out drawings, a line for each judge."""
    lines = []
    for name, scores in zip(("judge", "second judge"), known, strict=True):
        traits = np.mean(list(scores["traits"].values()))
        lines.append(
            f"{name}, held-out drawings: {100 * traits:.0f} % of the variance of the traits "
            f"explained, joints {scores['joint_error']:.3f} of the height away, a person's other "
            f"image found before the twin's two {100 * scores['twins_told_apart']:.0f} % of the "
            "time (by chance: 33 %)."
        )
    return lines
