"""Random people, poses and scenes, determined by the generator's seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from .scene import (
    BEARDS,
    BUILDS,
    EXPRESSIONS,
    EYE_COLOURS,
    FLAWS,
    FRAMINGS,
    HAIR_COLOURS,
    HAIR_STYLES,
    PLACES,
    SHIRT_COLOURS,
    SHIRT_STYLES,
    SKINS,
    THINGS,
    Identity,
    Pose,
    Scene,
    Traits,
)

Random = np.random.Generator
Angles = tuple[float, float, float, float]

# Arms (right upper, fore, left upper, fore), legs (right thigh, shin, left thigh, shin), lean.
# The last four are yoga: mountain with joined hands, tree, warrior II, triangle.
POSES: dict[str, tuple[Angles, Angles, float]] = {
    "standing": ((9, 4, 9, 4), (4, 2, 4, 2), 0),
    "waving": ((9, 4, 105, 168), (4, 2, 5, 3), 2),
    "arms raised": ((152, 168, 152, 168), (8, 6, 8, 6), 0),
    "hands on hips": ((42, -44, 42, -44), (10, 8, 10, 8), 0),
    "arms crossed": ((14, -98, 14, -98), (5, 3, 5, 3), 0),
    "walking": ((26, 8, 20, 30), (18, 6, 8, 20), 0),
    "dancing": ((70, 140, 95, 40), (28, -18, 14, 10), 8),
    "mountain": ((158, 196, 158, 196), (3, 1, 3, 1), 0),
    "tree": ((158, 194, 158, 194), (2, 0, 62, -66), 0),
    "warrior": ((90, 90, 90, 90), (66, 0, 42, 42), 0),
    "triangle": ((80, 80, 96, 96), (26, 26, 26, 26), -48),
}
YOGA = ("mountain", "tree", "warrior", "triangle")

_POSE_ODDS = (0.34, 0.07, 0.06, 0.08, 0.07, 0.08, 0.08, 0.05, 0.06, 0.06, 0.05)
_FRAMING_ODDS = (0.28, 0.32, 0.18, 0.22)
_THING_ODDS = {"sunglasses": 0.20, "umbrella": 0.18, "hat": 0.12}
_COMPANY = 0.18


def _one(rng: Random, names: Sequence[str], odds: Sequence[float] | None = None) -> str:
    return names[int(rng.choice(len(names), p=odds))]


def random_traits(rng: Random) -> Traits:
    """Traits from -1 to 1, denser at the ends than in the middle."""
    values = np.sin(rng.uniform(-np.pi / 2, np.pi / 2, len(fields(Traits))))
    return Traits(*(float(value) for value in values))


def random_identity(rng: Random, gender: str | None = None) -> Identity:
    """A person; a man or a woman with equal probability unless `gender` is given."""
    gender = gender or _one(rng, ("man", "woman"))
    return Identity(
        gender=gender,
        skin=_one(rng, SKINS),
        hair_style=_one(rng, HAIR_STYLES[gender]),
        hair_colour=_one(rng, HAIR_COLOURS),
        beard=_one(rng, BEARDS, (0.40, 0.14, 0.14, 0.12, 0.20)) if gender == "man" else "none",
        eyes=_one(rng, EYE_COLOURS),
        build=_one(rng, BUILDS),
        shirt_colour=_one(rng, SHIRT_COLOURS),
        shirt_style=_one(rng, SHIRT_STYLES, (0.5, 0.25, 0.25)),
        glasses=bool(rng.random() < 0.15),
        wrinkles=bool(rng.random() < 0.2),
        traits=random_traits(rng),
    )


def random_pose(rng: Random, name: str | None = None, freedom: float = 7.0) -> Pose:
    """A pose, random unless named, with angles varied by `freedom` degrees and a turned head."""
    name = name or _one(rng, tuple(POSES), _POSE_ODDS)
    arms, legs, lean = POSES[name]
    freedom *= 3.0 if name == "dancing" else 1.0
    mirror = bool(rng.random() < 0.5)
    if mirror:
        arms, legs, lean = arms[2:] + arms[:2], legs[2:] + legs[:2], -lean
    spread = freedom * np.clip(rng.normal(0, 1, 9), -2, 2)
    a, b, c, d = (float(x + y) for x, y in zip(arms, spread[:4], strict=True))
    e, f, g, h = (float(x + 0.5 * y) for x, y in zip(legs, spread[4:8], strict=True))
    yaw, pitch = rng.uniform(-1, 1, 2)
    return Pose(
        name, (a, b, c, d), (e, f, g, h), lean=float(lean + 0.4 * spread[8]),
        tilt=float(np.clip(rng.normal(0, 6), -14, 14)), yaw=float(yaw), pitch=float(0.8 * pitch),
    )  # fmt: skip


def _pose_for(rng: Random, framing: str, accompanied: bool) -> str | None:
    """A pose that is visible in the framing; None for any."""
    if framing == "close-up" or accompanied:
        return "standing"
    if framing in ("portrait", "half"):
        return _one(
            rng, ("standing", "waving", "hands on hips", "arms crossed"), (0.6, 0.14, 0.12, 0.14)
        )
    return None


def random_scene(
    rng: Random, identity: Identity | None = None, *, framing: str | None = None,
    place: str | None = None, flaws: float = 0.0,
) -> Scene:  # fmt: skip
    """A scene of `identity` or a random person; `flaws` is the probability of a spoiled drawing."""
    identity = identity or random_identity(rng)
    framing = framing or _one(rng, FRAMINGS, _FRAMING_ODDS)
    things = tuple(thing for thing in THINGS if rng.random() < _THING_ODDS[thing])
    if framing == "close-up" or "umbrella" in things:
        things = tuple(t for t in things if t != ("umbrella" if framing == "close-up" else "hat"))
    other = "woman" if identity.gender == "man" else "man"
    companion = random_identity(rng, other) if rng.random() < _COMPANY else None
    if framing == "close-up":
        companion = None
    return Scene(
        identity=identity,
        expression=_one(rng, EXPRESSIONS),
        framing=framing,
        pose=random_pose(rng, _pose_for(rng, framing, companion is not None)),
        place=place or _one(rng, PLACES),
        things=things,
        companion=companion,
        flaw=_one(rng, FLAWS) if rng.random() < flaws else None,
        variation=int(rng.integers(1 << 31)),
    )
