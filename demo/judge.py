"""The judge, a classifier of the miniature's images: person, place, things, pose; and scores.

    judge = load_judge(path)
    opinion = judge(images)                       # uint8 (n, h, w, 3)
    prompt_match(opinion, "a photo of a man sks with umbrella")
    identity_match(opinion, reference_for(judge, identity, photos))
    pose_error(opinion, keypoints, aspect)

It only knows the drawn world. It is trained before any personalisation, and never afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..trainers.errors import BaseModelError
from ..trainers.weights import write_weights
from .facts import QUESTIONS, asked
from .judge_networks import ARCHITECTURES, ConvolutionJudge, JudgeOutput, PatchJudge
from .scene import Identity

Scores = NDArray[np.float64]
_BATCH = 32


@dataclass(frozen=True)
class Judge:
    """A trained network and the name of its architecture."""

    network: ConvolutionJudge | PatchJudge
    architecture: str

    @torch.no_grad()
    def __call__(self, images: NDArray[np.uint8]) -> JudgeOutput:
        """The judge's output for RGB images, uint8 (n, h, w, 3), as tensors on the CPU."""
        device = next(self.network.parameters()).device
        given = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
        parts = [self.network(p.to(device).float() / 127.5 - 1) for p in given.split(_BATCH)]
        return _joined(parts)


def _joined(parts: Sequence[JudgeOutput]) -> JudgeOutput:
    def whole(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts]).cpu()

    answers = {q: torch.cat([part.answers[q] for part in parts]).cpu() for q in QUESTIONS}
    return JudgeOutput(answers, *map(whole, ("traits", "identity", "joints", "visible")))


def save_judge(path: Path, network: ConvolutionJudge | PatchJudge) -> None:
    """Writes the network in fp16, with its architecture and questions as metadata."""
    name = next(name for name, kind in ARCHITECTURES.items() if isinstance(network, kind))
    metadata = {"architecture": name, "questions": json.dumps(QUESTIONS)}
    write_weights(path, network.state_dict(), torch.float16, metadata)


def load_judge(path: Path) -> Judge:
    """Loads a judge in evaluation mode, on the CPU.

    Raises:
        BaseModelError: the file is damaged, or its questions differ from those of `facts`.
    """
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        name = metadata["architecture"]
        network = ARCHITECTURES[name]()
        network.load_state_dict(state)
        questions = {q: tuple(a) for q, a in json.loads(metadata["questions"]).items()}
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise BaseModelError(f"{path} is not a judge of this version: {error}") from None
    if questions != QUESTIONS:
        raise BaseModelError(f"{path} has other questions than this version.")
    return Judge(network.eval(), name)


# Scores, all of shape (n,), one for each image.


def rejected(opinion: JudgeOutput) -> NDArray[np.bool_]:
    """Whether the judge rejects an image: it sees no person of its world."""
    kind = opinion.answers["kind"].argmax(1)
    return np.asarray(kind == QUESTIONS["kind"].index("reject"))


def fact_matches(opinion: JudgeOutput, wanted: Mapping[str, Sequence[str]]) -> dict[str, Scores]:
    """For each question: 1 if the image's answer is one of those wanted, else 0.

    The wanted answers together must have a probability above 0.5; a reject matches nothing.
    """
    matches = {}
    for question, answers in wanted.items():
        chances = opinion.answers[question].softmax(1)  # (n, choices)
        places = [QUESTIONS[question].index(answer) for answer in answers]
        likely = chances[:, places].sum(1) > 0.5
        matches[question] = np.where(rejected(opinion), 0.0, likely.numpy().astype(float))
    return matches


def prompt_match(
    opinion: JudgeOutput, prompt: str,
    wanted: Callable[[str], Mapping[str, Sequence[str]]] = asked,
) -> Scores:  # fmt: skip
    """The fraction of a prompt's requests that the image shows, from 0 to 1.

    `wanted` parses the prompt: `facts.asked`, or `facts.asked_of_scene` to ignore the person.
    Raises ValueError if the prompt asks for nothing that the judge knows.
    """
    matches = fact_matches(opinion, wanted(prompt))
    if not matches:
        raise ValueError(f"the judge knows nothing that {prompt!r} asks for")
    return np.mean(list(matches.values()), axis=0)


def pose_error(opinion: JudgeOutput, keypoints: NDArray[np.float64], aspect: float) -> Scores:
    """Mean distance of the detected joints from `keypoints`, in image heights.

    `keypoints` (18, 3) or (n, 18, 3): x, y from 0 to 1, and 1 for requested joints; `aspect` is
    width / height. Without any requested joint the error is NaN.
    """
    asked_for = np.broadcast_to(keypoints, (len(opinion.joints), 18, 3))
    away = (opinion.joints.numpy() - asked_for[..., :2]) * (aspect, 1.0)
    distance, shown = np.linalg.norm(away, axis=-1), asked_for[..., 2] > 0  # (n, 18)
    count = shown.sum(1)
    total = np.where(shown, distance, 0.0).sum(1)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


@dataclass(frozen=True)
class Reference:
    """A subject's direction in a judge's identity space, and calibration values.

    `chance` is the mean similarity of other people of the same gender, `same` that of other
    images of the subject.
    """

    direction: NDArray[np.float64]  # (64,)
    chance: float
    same: float


def identity_match(opinion: JudgeOutput, reference: Reference) -> Scores:
    """How well an image shows the subject: 0 for a stranger and 1 for the subject, on average.

    The cosine between the image's identity and the reference with Cohen's correction for chance,
    (seen - chance) / (same - chance). A rejected image has 0.
    """
    likeness = opinion.identity.numpy() @ reference.direction
    match = (likeness - reference.chance) / (reference.same - reference.chance)
    return np.where(rejected(opinion), 0.0, match)


def reference(
    judge: Judge,
    photos: NDArray[np.uint8],
    others: NDArray[np.uint8],
    more: NDArray[np.uint8],
) -> Reference:
    """The reference of a subject, from their photos, images of others, and `more` of the subject.

    Raises ValueError if the judge cannot tell the subject from others.
    """
    mean = judge(photos).identity.numpy().astype(float).mean(0)
    direction = mean / np.linalg.norm(mean)
    chance, same = (float((judge(p).identity.numpy() @ direction).mean()) for p in (others, more))
    if same - chance < 0.05:
        raise ValueError("the judge cannot tell this subject from other people")
    return Reference(direction, chance, same)


def reference_for(
    judge: Judge, identity: Identity, photos: NDArray[np.uint8], *, count: int = 64, seed: int = 0
) -> Reference:
    """The reference of a person of the drawn world; deterministic.

    Draws `count` scenes of the person and of as many strangers of the same gender, at the photos'
    size.
    """
    from . import world

    height, width = photos.shape[1:3]
    rng = np.random.default_rng((seed, 11))
    strangers = [world.random_identity(rng, identity.gender) for _ in range(count)]
    others, more = (
        np.stack([world.draw(world.random_scene(rng, who), width, height) for who in people])
        for people in (strangers, [identity] * count)
    )
    return reference(judge, photos, others, more)
