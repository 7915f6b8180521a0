"""The judge as an encoder for comparison/: similarity, prompt match and pose error.

It only knows the miniature's world, and is only offered for images of its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..comparison.encoders import Encoder, MissingEncoder, Values, Vectors
from ..comparison.matrix import ImageSettings
from ..comparison.poses import Pose
from ..trainers.errors import BaseModelError
from . import weights
from .facts import QUESTIONS

if TYPE_CHECKING:
    from .judge import Judge
    from .judge_networks import JudgeOutput

# Side in pixels. The world is drawn at 64 to 128; Stable Diffusion 1.5 is not used at such sizes.
LARGEST = 256

_IDENTITY, _JOINTS, _TRAITS = 64, 18, 26


@dataclass(frozen=True)
class JudgeEncoder:
    """Encodes an image as the judge's outputs in one vector; NaN if it rejects the image.

    The similarity is the cosine of identities, and 0 for a rejected image: it shows nobody.
    """

    judge: Judge
    digest: str
    name: str = "judge of the drawn world"
    key: str = "judge"
    identity_only: bool = True

    def encode(self, images: Sequence[Image.Image]) -> Vectors:
        """Vectors (n, d): identity, answers, traits, joints and their visibility."""
        return np.stack([self._encode(image) for image in images])

    def _encode(self, image: Image.Image) -> Vectors:
        from .judge import rejected

        opinion = self.judge(np.asarray(image)[None])
        parts = [opinion.identity, *(opinion.answers[q] for q in QUESTIONS), opinion.traits]
        parts += [opinion.joints.flatten(1), opinion.visible]
        vector = np.concatenate([part[0].numpy() for part in parts]).astype(np.float32)
        return np.full_like(vector, np.nan) if rejected(opinion)[0] else vector

    def likeness(self, a: Vectors, b: Vectors) -> Values:
        """Cosines of identities, (n, m)."""
        alike = a[:, :_IDENTITY].astype(np.float64) @ b[:, :_IDENTITY].astype(np.float64).T
        return np.where(np.isnan(a).any(1, keepdims=True), 0.0, alike)

    def prompt_match(self, vectors: Vectors, prompts: Sequence[str]) -> Values:
        """Fraction (n,) of a prompt's requests that its image shows; 0 if it is rejected."""
        from .judge import prompt_match

        values = np.zeros(len(vectors))
        for index, (vector, prompt) in enumerate(zip(vectors, prompts, strict=True)):
            if not np.isnan(vector).any():
                try:
                    values[index] = prompt_match(_opinion(vector), prompt)[0]
                except ValueError:
                    values[index] = np.nan  # the prompt asks for nothing that the judge knows
        return values

    def pose_error(self, vectors: Vectors, poses: Sequence[Pose]) -> Values:
        """Mean joint distance (n,) to each pose's first person; NaN for a rejected image."""
        from .judge import pose_error

        values = np.full(len(vectors), np.nan)
        for index, (vector, pose) in enumerate(zip(vectors, poses, strict=True)):
            if not np.isnan(vector).any():
                asked = np.array(
                    [(*point, 1.0) if point else (0, 0, 0) for point in pose.people[0]]
                )
                values[index] = pose_error(_opinion(vector), asked, pose.aspect)[0]
        return values


def _opinion(vector: Vectors) -> JudgeOutput:
    """The judge's output for one image, from its vector."""
    import torch

    from .judge_networks import JudgeOutput

    sizes = [_IDENTITY, *map(len, QUESTIONS.values()), _TRAITS, 2 * _JOINTS, _JOINTS]
    identity, *parts = torch.from_numpy(vector)[None].split(sizes, dim=1)
    *answers, traits, joints, visible = parts
    return JudgeOutput(
        answers=dict(zip(QUESTIONS, answers, strict=True)),
        traits=traits,
        identity=identity,
        joints=joints.view(1, _JOINTS, 2),
        visible=visible,
    )


def find_judge(settings: ImageSettings) -> Encoder | None:
    """The judge for images of the miniature's size, or None for larger ones.

    Raises MissingEncoder if its weights are not installed.
    """
    if max(settings.width, settings.height) > LARGEST:
        return None
    try:
        path = weights.find(weights.JUDGE)
    except BaseModelError:
        raise MissingEncoder(
            "The judge of the drawn world is left out: its weights in demo/weights are missing or "
            "damaged. Reinstall the pack."
        ) from None
    from .judge import load_judge

    return JudgeEncoder(load_judge(path), weights.digest(path))
