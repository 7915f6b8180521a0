"""The subject: one person and the 15 images of them that the demo trains on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from .casting import random_identity, random_pose
from .scene import EXPRESSIONS, PLACES, Identity, Scene, Traits

# The 15 images in the repository, drawn by `write_subject(FOLDER, seed=0, identity=SUBJECT)`.
FOLDER = Path(__file__).resolve().parent / "subject"

SUBJECT = Identity(
    gender="man",
    skin="light",
    hair_style="swept",
    hair_colour="red",
    beard="goatee",
    eyes="green",
    build="slim",
    shirt_colour="teal",
    shirt_style="striped",
    traits=Traits(
        face_width=-0.5, face_height=0.7, jaw=0.6, chin=0.5, eye_spacing=0.3, eye_size=0.4,
        eye_tilt=-0.4, brow_tilt=-0.6, brow_thickness=0.9, brow_height=-0.3, nose_length=0.8,
        nose_width=-0.4, mouth_width=0.5, mouth_height=-0.2, lips=-0.3, ear_size=0.9,
        hairline=-0.2, hair_volume=0.8, hair_tone=0.3, skin_tone=-0.4, freckles=0.8, blush=0.4,
        mole=-0.7, neck=0.5, sleeves=0.6, trousers=-0.9,
    ),
)  # fmt: skip

# Framings and poses as in a typical photo set: mostly close, some whole figures.
_SHOTS = (
    ("close-up", "standing"), ("portrait", "standing"), ("portrait", "arms crossed"),
    ("half", "waving"), ("close-up", "standing"), ("portrait", "standing"), ("full", "walking"),
    ("close-up", "standing"), ("half", "hands on hips"), ("portrait", "waving"),
    ("close-up", "standing"), ("portrait", "standing"), ("half", "arms crossed"),
    ("close-up", "standing"), ("full", "arms raised"),
)  # fmt: skip


def subject_scenes(identity: Identity, seed: int, count: int = 15) -> list[Scene]:
    """`count` scenes of one person, alone and with the face unobstructed.

    Cycles through framings, poses, expressions and places; the seed determines angles and details.
    """
    rng = np.random.default_rng(seed)
    scenes = []
    for k in range(count):
        framing, pose = _SHOTS[k % len(_SHOTS)]
        scenes.append(
            Scene(
                identity=identity,
                expression=EXPRESSIONS[3 * k % len(EXPRESSIONS)],
                framing=framing,
                pose=random_pose(rng, pose),
                place=PLACES[(5 * k + k // len(PLACES)) % len(PLACES)],
                variation=int(rng.integers(1 << 31)),
            )
        )
    return scenes


def write_subject(
    folder: Path, seed: int, count: int = 15, identity: Identity | None = None, size: int = 256
) -> list[Path]:
    """Draws a subject to ``01.png``, ``02.png``, … of `size` by `size` pixels; returns the paths.

    Without `identity`, draws a random man. Raises MissingPackage without aggdraw.
    """
    from .world import draw  # aggdraw is not needed to read the folder

    who = identity or random_identity(np.random.default_rng((seed, 1)), "man")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, scene in enumerate(subject_scenes(who, seed, count), 1):
        paths.append(folder / f"{k:02d}.png")
        Image.fromarray(draw(scene, size, size)).save(paths[-1], optimize=True)
    return paths
