"""Measures the world's own drawings: the upper bound for any model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..trainers.latents import encode
from ..trainers.sampler import decode
from .casting import random_identity, random_scene
from .facts import QUESTIONS, asked, asked_of_scene, truth
from .judge import Judge, Reference, identity_match, pose_error, prompt_match
from .measures import CLASS_PROMPT, SHOWN, TOKEN_PROMPT, Canvas, Images, Measures, Words, mean
from .scene import Identity, Scene
from .world import draw, keypoints


def measure_drawings(
    identity: Identity, vae: Any, judge: Judge, subject: Reference, *,
    draws: int, seed: int, canvas: Canvas,
) -> tuple[Measures, Images]:  # fmt: skip
    """As `measures.measure`, on drawings that match the prompts, encoded and decoded by the VAE.

    `drift` is the share of other people's drawings that the judge mistakes for the person,
    `joints_controlled` the judge's own joint error; `joints` is NaN.
    """
    rng, width, height = np.random.default_rng((seed, 5)), canvas.width, canvas.height
    words = Words(class_word=identity.gender)
    study = words.study()

    def seen(scenes: Sequence[Scene]) -> Images:
        pixels = np.stack([draw(scene, width, height) for scene in scenes])
        means = [latents.mean for latents in encode(vae, pixels, torch.device("cpu"))]
        return decode(vae, torch.stack(means))

    scenes = {key: scenes_for(text, identity, draws, rng) for key, text in study.items()}
    images = {key: seen(found) for key, found in scenes.items()}
    opinions = {key: judge(found) for key, found in images.items()}
    own = seen(scenes_for(words.fill(TOKEN_PROMPT), identity, 3 * draws, rng))
    text, others = words.fill(CLASS_PROMPT), []
    for _ in range(3 * draws):
        others += scenes_for(text, random_identity(rng, identity.gender), 1, rng)
    taken = identity_match(judge(seen(others)), subject) > SHOWN
    joints = {key: np.stack([keypoints(s, width, height) for s in scenes[key]]) for key in scenes}
    numbers = Measures(
        identity=mean(identity_match(opinion, subject) for opinion in opinions.values()),
        prompt=mean(prompt_match(opinions[k], t, asked_of_scene) for k, t in study.items()),
        token=float(identity_match(judge(own), subject).mean()),
        drift=float(taken.mean()),
        joints=float("nan"),
        joints_controlled=mean(
            pose_error(opinions[key], joints[key], width / height) for key in study
        ),
    )
    return numbers, np.stack([found[0] for found in images.values()])


def scenes_for(
    prompt: str, identity: Identity, count: int, rng: np.random.Generator
) -> list[Scene]:
    """`count` scenes of a person that match a prompt, without additional things or company.

    What the prompt says about the person is ignored.
    """
    wanted, found = asked_of_scene(prompt), list[Scene]()
    alone = "company" not in asked(prompt)
    while len(found) < count:
        scene = random_scene(rng, identity)
        answers = dict(zip(QUESTIONS, truth(scene), strict=True))
        shows = all(QUESTIONS[name][answers[name]] in said for name, said in wanted.items())
        more = [thing for thing in scene.things if thing not in wanted]
        if shows and not more and alone == (scene.companion is None):
            found.append(scene)
    return found
