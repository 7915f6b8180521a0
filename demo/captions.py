"""Captions of scenes in the study's phrases; which facts they mention is random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .casting import YOGA
from .scene import Identity, Scene
from .words import NONSENSE, WORDS

Random = np.random.Generator

_OPENINGS = {
    "close-up": (
        "close up portrait of {who} face",
        "close up photo of {who}",
        "a photo of {who} face",
    ),
    "portrait": (
        "portrait of {who} face",
        "portrait of {who}",
        "a photo of {who} face",
        "a photo of {who}",
    ),
    "half": ("a photo of {who}", "half body photo of {who}", "photo of {who}", "picture of {who}"),
    "full": ("a photo of {who}", "full body photo of {who}", "photo of {who}", "picture of {who}"),
}
_PLACES = {
    "kitchen": ("in the kitchen", "in the kitchen", "in a kitchen"),
    "forest": ("in the forest", "in the forest", "in the woods"),
    "street": ("on the street, lights, midnight, NY", "on the street, lights, midnight, NY",
               "on the street, midnight", "on the street, night", "in the city, lights, midnight"),
    "beach": ("on the beach", "at the beach", "by the sea"),
    "office": ("in the office", "in an office", "at the office"),
    "plain": ("plain background", "in front of a plain wall", "in the studio"),
}  # fmt: skip
_POSES = {
    "standing": ("standing",),
    "waving": ("waving",),
    "arms raised": ("arms raised", "with arms raised"),
    "hands on hips": ("hands on hips",),
    "arms crossed": ("arms crossed", "with arms crossed"),
    "walking": ("walking",),
    "dancing": ("dancing",),
}
_THINGS = {
    "sunglasses": ("in sunglasses", "in sunglasses", "with sunglasses", "wearing sunglasses"),
    "umbrella": ("with umbrella", "with umbrella", "with an umbrella", "holding an umbrella"),
    "hat": ("with hat", "in a hat", "wearing a hat"),
}
_BEARDS = {
    "stubble": "with stubble",
    "moustache": "with a moustache",
    "goatee": "with a goatee",
    "full": "with a beard",
}
_QUALITY = ("4K", "raw", "hrd", "hd", "high quality", "realism", "sharp focus")
_FLAWS = {
    "blurry": ("blurry", "poorly drawn", "ugly"),
    "distorted": ("deformed", "distorted", "disfigured", "mutation", "ugly", "poorly drawn"),
    "extra limb": ("extra limb", "floating limbs", "mutated hands", "mutation", "bad anatomy"),
    "missing limb": ("missing limb", "disconnected limbs", "amputation", "bad anatomy", "deformed"),
}
# The study's negative prompt, also used as a caption of spoiled drawings.
_NEGATIVE = (
    "naked, nsfw, deformed, distorted, disfigured, poorly drawn, bad anatomy, extra limb, "
    "missing limb, floating limbs, mutated hands disconnected limbs, mutation, ugly, blurry, "
    "amputation"
)


_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _pick(rng: Random, phrases: Sequence[str]) -> str:
    return phrases[int(rng.integers(len(phrases)))]


def caption(scene: Scene, rng: Random) -> str:
    """A true but incomplete caption of the scene, which never mentions traits."""
    detail = 0.0 if rng.random() < 0.4 else 0.35
    parts = [_opening(scene, rng, detail)]
    if rng.random() < 0.8:
        parts.append(_pick(rng, _PLACES[scene.place]))
    parts += _pose_and_look(scene, rng)
    if scene.flaw is not None:
        return _spoiled(scene.flaw, parts, rng)
    draw = rng.random()
    if draw < 0.35:
        parts += _QUALITY
    elif draw < 0.5:
        parts += [word for word in _QUALITY if rng.random() < 0.4]
    return ", ".join(parts) + ("." if rng.random() < 0.06 else "")


def _opening(scene: Scene, rng: Random, detail: float) -> str:
    """Who, with some of their features, with which things and with whom."""
    opening = _pick(rng, _OPENINGS[scene.framing])
    who = opening.format(who=_who(scene.identity, rng, detail))
    about = [*_features(scene, rng, detail)]
    about += [_pick(rng, _THINGS[thing]) for thing in scene.things if rng.random() < 0.92]
    if scene.companion is not None and rng.random() < 0.95:
        other = "girlfriend" if scene.companion.gender == "woman" else "boyfriend"
        own = "his" if scene.identity.gender == "man" else "her"
        about.append(_pick(rng, (f"with {other}", f"with {other}", f"with {own} {other}")))
    if len(about) > 1 and rng.random() < 0.3:
        about.insert(-1, "and")
    return " ".join((who, *about))


def _who(identity: Identity, rng: Random, detail: float) -> str:
    """``a man``, ``zwx man``, ``a slim woman qof``: with article, build, or a nonsense word."""
    words = [identity.gender]
    if detail and identity.build != "average" and rng.random() < detail:
        words.insert(0, identity.build)
    if detail and identity.hair_style == "bald" and rng.random() < 0.6:
        words.insert(0, "bald")
    draw = rng.random()
    if draw < 0.14:
        words.insert(0, _nonsense(rng))
    elif draw < 0.24:
        words.append(_nonsense(rng))
    elif draw < 0.26:
        words = [_nonsense(rng), _nonsense(rng), *words]
    elif draw < 0.28:
        return f"{_nonsense(rng)} {_nonsense(rng)}"
    if rng.random() < 0.5:
        words.insert(0, "a")
    return " ".join(words)


def _nonsense(rng: Random) -> str:
    """A nonsense word; one in five is made up.

    Made-up words are random letters, half of them after the start of a known word, so that the
    pieces of unknown words are learned to mean nothing.
    """
    if rng.random() > 0.2:
        return _pick(rng, NONSENSE)
    start = _pick(rng, WORDS)[: int(rng.integers(2, 9))] if rng.random() < 0.5 else ""
    word = start.strip(",.") + "".join(_pick(rng, _LETTERS) for _ in range(int(rng.integers(2, 5))))
    return NONSENSE[0] if word in WORDS else word


def _features(scene: Scene, rng: Random, detail: float) -> list[str]:
    """Phrases for the person's looks, each included with probability `detail`."""
    who, found = scene.identity, []
    hair = who.hair_style if who.hair_style not in ("buzz", "bob") else f"{who.hair_style} cut"
    if who.hair_style != "bald":
        colour = who.hair_colour
        found.append(
            _pick(rng, (f"with {colour} hair", f"with {colour} {hair} hair", f"with {hair} hair"))
        )
        if who.hair_style in ("afro", "ponytail", "bun", "bob"):
            found[-1] = f"with a {colour} {who.hair_style}"
    if who.beard != "none":
        found.append(_BEARDS[who.beard])
    shirt = f"{who.shirt_colour} shirt"
    if who.shirt_style != "plain" and rng.random() < 0.5:
        shirt = f"{who.shirt_style} {shirt}"
    found += [f"in a {shirt}", f"with {who.skin} skin"]
    if "sunglasses" not in scene.things:
        found.append(f"with {who.eyes} eyes")
        if who.glasses:
            found.append("with glasses")
    return [phrase for phrase in found if rng.random() < detail]


def _pose_and_look(scene: Scene, rng: Random) -> list[str]:
    parts = []
    pose = scene.pose.name
    if rng.random() < 0.6:
        if pose in YOGA:
            parts.append(_pick(rng, ("doing yoga", "yoga pose", f"doing yoga, {pose} pose")))
        else:
            parts.append(_pick(rng, _POSES[pose]))
    if rng.random() < 0.18:
        parts.append("random head angle")
    elif rng.random() < 0.12:
        parts += _gaze(scene.pose.yaw)
    if rng.random() < 0.45:
        smiles = scene.expression in ("slight smile", "smiling", "laughing")
        if smiles and rng.random() < 0.2:
            parts.append("random smile")
        else:
            parts.append(
                "neutral expression" if scene.expression == "neutral" else scene.expression
            )
    if scene.identity.wrinkles and rng.random() < 0.4:
        parts.append("wrinkles")
    return parts


def _gaze(yaw: float) -> list[str]:
    """Where the person looks, in terms of the image's sides."""
    if abs(yaw) < 0.25:
        return ["looking at the camera"]
    if abs(yaw) < 0.5:
        return []
    return ["looking to the right" if yaw > 0 else "looking to the left"]


def _spoiled(flaw: str, parts: list[str], rng: Random) -> str:
    """A caption of a spoiled drawing: words of the negative prompt, maybe with the scene's."""
    if rng.random() < 0.4:
        return _NEGATIVE
    words = [word for word in _FLAWS[flaw] if rng.random() < 0.5] or [_FLAWS[flaw][0]]
    words += [word for word in ("naked", "nsfw") if rng.random() < 0.1]
    return ", ".join(words + parts if rng.random() < 0.5 else parts + words)
