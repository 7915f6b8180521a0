"""Measures what a model has learned about a person: draws images and scores them with the judge.

The images are the study's: six prompts at a guidance scale of 7.5, in the miniature's size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..comparison.keypoints import yoga_poses
from ..comparison.poses import Pose, choose_pose, draw_pose, fit_pose
from ..comparison.prompts import bundled_set
from ..trainers.base_model import BaseModel
from ..trainers.sampler import ControlNet, calculate_sigmas, decode, prepare_noise, sample
from ..trainers.text_encoding import encode_text, tokenize
from . import miniature
from .facts import asked_of_scene
from .judge import Judge, Reference, identity_match, pose_error, prompt_match

TOKEN_PROMPT = "a photo of {token} {class} face"
CLASS_PROMPT = "a photo of a {class}"
SHOWN = 0.5  # identity match above which an image counts as showing the subject

Images = NDArray[np.uint8]  # (n, height, width, 3)


@dataclass(frozen=True)
class Canvas:
    """Sampling settings: size in pixels, steps, guidance scale."""

    width: int = 96
    height: int = 128
    steps: int = 20
    guidance: float = 7.5


@dataclass(frozen=True)
class Words:
    """The subject's token and class word, and prompts filled in with them."""

    token: str = "sks"
    class_word: str = "man"

    def fill(self, text: str) -> str:
        """Fills in a prompt for this subject."""
        return text.replace("{token}", self.token).replace("{class}", self.class_word)

    def study(self) -> dict[str, str]:
        """The study's six prompts by key."""
        return {p.key: self.fill(p.text) for p in bundled_set("study").prompts}


@dataclass(frozen=True)
class Measures:
    """The judge's scores of one model; all are means over images.

    identity: identity match over the six prompts, 0 for a stranger and 1 for the subject.
    prompt: fraction of the six prompts' requests that is drawn, without the person, 0 to 1.
    token: identity match for TOKEN_PROMPT.
    drift: fraction of the class prompt's images that show the subject, 0 to 1.
    joints: distance of joints from a pose that the model was not given, in heights.
    joints_controlled: the same with the pose given to the ControlNet; NaN without one.
    """

    identity: float
    prompt: float
    token: float
    drift: float
    joints: float
    joints_controlled: float

    def to_dict(self) -> dict[str, float | None]:
        """As a dict for JSON, with NaN as None."""
        return {k: None if np.isnan(v) else round(v, 4) for k, v in asdict(self).items()}


@torch.no_grad()
def draw(
    model: BaseModel, prompts: Sequence[str], seeds: Sequence[int], *,
    control: ControlNet | None = None, negative: str = "", canvas: Canvas = Canvas(),
) -> Images:  # fmt: skip
    """One image for each prompt, from its seed's noise, in one batch."""
    ids = tokenize(model.tokenizer, [*prompts, negative]).to(model.unet.device)
    context = encode_text(model.text_encoder, ids)
    latents = sample(
        model.unet, context[:-1], context[-1:],
        prepare_noise(list(seeds), canvas.height, canvas.width),
        sigmas=calculate_sigmas(canvas.steps), guidance=canvas.guidance, control=control,
        prediction=model.prediction,
    )  # fmt: skip
    return decode(model.vae, latents)


def measure(
    model: BaseModel, judge: Judge, subject: Reference, *, words: Words = Words(),
    controlnet: Any = None, draws: int = 2, seed: int = 0, canvas: Canvas = Canvas(),
) -> tuple[Measures, Images]:  # fmt: skip
    """The scores of a model, and the first image of each of the six prompts.

    Scores `draws` images of each prompt, from noise that depends on `seed` only and is the same
    for every model; `controlnet` is a diffusers ControlNetModel.
    """
    study, seeds = words.study(), [seed * 1000 + n for n in range(draws)]
    more = [seed * 1000 + n for n in range(3 * draws)]
    made = partial(draw, model, negative=bundled_set("study").negative, canvas=canvas)
    drawn = {key: made([text] * draws, seeds) for key, text in study.items()}
    opinions = {key: judge(images) for key, images in drawn.items()}
    own = judge(made([words.fill(TOKEN_PROMPT)] * len(more), more))
    other = judge(made([words.fill(CLASS_PROMPT)] * len(more), more))
    joints = controlled = float("nan")
    if controlnet is not None:
        joints, controlled = _joint_errors(made, judge, study, controlnet, seed, canvas)
    numbers = Measures(
        identity=mean(identity_match(opinion, subject) for opinion in opinions.values()),
        prompt=mean(prompt_match(opinions[k], t, asked_of_scene) for k, t in study.items()),
        token=float(identity_match(own, subject).mean()),
        drift=float((identity_match(other, subject) > SHOWN).mean()),
        joints=joints,
        joints_controlled=controlled,
    )
    return numbers, np.stack([images[0] for images in drawn.values()])


def mean(values: Any) -> float:
    """The mean of all values in several arrays."""
    return float(np.concatenate(list(values)).mean())


def _joint_errors(
    made: Callable[..., Images], judge: Judge, study: Mapping[str, str], controlnet: Any,
    seed: int, canvas: Canvas,
) -> tuple[float, float]:  # fmt: skip
    """Joint errors of the six prompts with one pose each, without and with ControlNet."""
    width, height = canvas.width, canvas.height
    poses = [fit_pose(choose_pose(yoga_poses(), seed, key), width, height) for key in study]
    asked_for = np.stack([keypoints(pose) for pose in poses])
    given = miniature.control(controlnet, pose_hints(poses, width, height))

    def error(control: ControlNet | None) -> float:
        images = made(list(study.values()), [seed] * len(study), control=control)
        return float(pose_error(judge(images), asked_for, width / height).mean())

    return error(None), error(given)


def keypoints(pose: Pose) -> NDArray[np.float64]:
    """A pose's first person as (18, 3): x, y from 0 to 1, and 1 for visible joints."""
    return np.array([(*point, 1.0) if point else (0.0, 0.0, 0.0) for point in pose.people[0]])


def pose_hints(poses: Sequence[Pose], width: int, height: int) -> torch.Tensor:
    """Skeleton images (n, 3, height, width) from 0 to 1 for a ControlNet."""
    drawn = np.stack([np.asarray(draw_pose(pose, width, height)) for pose in poses])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255
