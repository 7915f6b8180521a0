"""The ground truth of an image as numbers: the judge's questions and their answers.

An image has one answer to each question of `QUESTIONS`, and a value for each trait; `asked`
parses the answers that a prompt requests.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from .scene import (
    BEARDS,
    BUILDS,
    EXPRESSIONS,
    EYE_COLOURS,
    FLAWS,
    FRAMINGS,
    GENDERS,
    HAIR_COLOURS,
    HAIR_STYLES,
    PLACES,
    SHIRT_COLOURS,
    SHIRT_STYLES,
    SKINS,
    Identity,
    Scene,
    Traits,
)
from .words import split

_NO_YES = ("no", "yes")

QUESTIONS: dict[str, tuple[str, ...]] = {
    "gender": GENDERS,
    "skin": SKINS,
    "hair_style": tuple(dict.fromkeys(HAIR_STYLES["man"] + HAIR_STYLES["woman"])),
    "hair_colour": HAIR_COLOURS,
    "beard": BEARDS,
    "eyes": EYE_COLOURS,
    "build": BUILDS,
    "shirt_colour": SHIRT_COLOURS,
    "shirt_style": SHIRT_STYLES,
    "glasses": _NO_YES,
    "wrinkles": _NO_YES,
    "expression": EXPRESSIONS,
    "framing": FRAMINGS,
    "place": PLACES,
    "sunglasses": _NO_YES,
    "umbrella": _NO_YES,
    "hat": _NO_YES,
    "company": ("nobody", *GENDERS),
    "flaw": ("none", *FLAWS),
    "kind": ("drawing", "reject"),  # reject: no person of this world
}
TRAITS = tuple(trait.name for trait in fields(Traits))
UNKNOWN = -1
WHO = (
    *("gender", "skin", "hair_style", "hair_colour", "beard", "eyes", "build"),
    *("shirt_colour", "shirt_style"),
)


def truth(scene: Scene) -> NDArray[np.int8]:
    """Index of the true answer to each question, (questions,); UNKNOWN if it cannot be seen."""
    who = scene.identity
    answers: dict[str, str | None] = {name: getattr(who, name) for name in WHO}
    shaded = "sunglasses" in scene.things
    if who.hair_style == "bald":
        answers["hair_colour"] = None
    if shaded:
        answers["eyes"] = None
    answers |= {
        "glasses": None if shaded else _NO_YES[who.glasses],
        "wrinkles": _NO_YES[who.wrinkles],
        "expression": scene.expression,
        "framing": scene.framing,
        "place": scene.place,
        "company": scene.companion.gender if scene.companion else "nobody",
        "flaw": scene.flaw or "none",
        "kind": "drawing",
    }
    answers |= {
        thing: _NO_YES[thing in scene.things] for thing in ("sunglasses", "umbrella", "hat")
    }
    return _indices(answers)


def rejected() -> NDArray[np.int8]:
    """The answers for an image without a person: only `kind` is known."""
    return _indices({"kind": "reject"})


def _indices(answers: dict[str, str | None]) -> NDArray[np.int8]:
    known = ((name, answers.get(name)) for name in QUESTIONS)
    return np.array(
        [UNKNOWN if a is None else QUESTIONS[name].index(a) for name, a in known], np.int8
    )


def trait_values(identity: Identity) -> NDArray[np.float32]:
    """The traits in the order of TRAITS, (26,), each -1 to 1."""
    return np.array([getattr(identity.traits, name) for name in TRAITS], np.float32)


# Phrase of a prompt -> question and the answers that satisfy it. Longer phrases take precedence.
_PHRASES: dict[tuple[str, ...], tuple[str, tuple[str, ...]]] = {
    ("close", "up"): ("framing", ("close-up",)),
    ("portrait",): ("framing", ("close-up", "portrait")),
    ("half", "body"): ("framing", ("half",)),
    ("full", "body"): ("framing", ("full",)),
    ("man",): ("gender", ("man",)),
    ("woman",): ("gender", ("woman",)),
    ("girlfriend",): ("company", ("woman",)),
    ("boyfriend",): ("company", ("man",)),
    ("stubble",): ("beard", ("stubble",)),
    ("moustache",): ("beard", ("moustache",)),
    ("goatee",): ("beard", ("goatee",)),
    ("beard",): ("beard", ("full",)),
    ("glasses",): ("glasses", ("yes",)),
    ("wrinkles",): ("wrinkles", ("yes",)),
    ("random", "smile"): ("expression", ("slight smile", "smiling", "laughing")),
    ("neutral", "expression"): ("expression", ("neutral",)),
    **{(thing,): (thing, ("yes",)) for thing in ("sunglasses", "umbrella", "hat")},
    **{tuple(look.split()): ("expression", (look,)) for look in EXPRESSIONS if look != "neutral"},
    **{(colour, "hair"): ("hair_colour", (colour,)) for colour in HAIR_COLOURS},
    **{(colour, "shirt"): ("shirt_colour", (colour,)) for colour in SHIRT_COLOURS},
    **{(colour, "eyes"): ("eyes", (colour,)) for colour in EYE_COLOURS},
    **{(skin, "skin"): ("skin", (skin,)) for skin in SKINS},
    **{(place,): ("place", (place,)) for place in PLACES},
    ("woods",): ("place", ("forest",)),
    ("city",): ("place", ("street",)),
    ("midnight",): ("place", ("street",)),
    ("sea",): ("place", ("beach",)),
    ("studio",): ("place", ("plain",)),
}


def asked(prompt: str) -> dict[str, tuple[str, ...]]:
    """The questions that a prompt determines, each with the answers that satisfy it.

    ``"close up portrait of sks man face, in the kitchen"`` determines framing, gender and place.
    If a question is determined twice, the first phrase wins.
    """
    words, wanted, place = list(split(prompt)), dict[str, tuple[str, ...]](), 0
    while place < len(words):
        for length in (2, 1):
            found = _PHRASES.get(tuple(words[place : place + length]))
            if found is not None:
                wanted.setdefault(*found)
                break
        place += length if found is not None else 1
    return wanted


def asked_of_scene(prompt: str) -> dict[str, tuple[str, ...]]:
    """As `asked`, without the person's own attributes: framing, place, things, company.

    Whether the person looks like a man is up to identity, not the prompt: to the judge, a man with
    long hair and no beard is a woman. It then takes his girlfriend for the man, so any company
    counts as right.
    """
    wanted = {question: said for question, said in asked(prompt).items() if question not in WHO}
    return wanted | ({"company": GENDERS} if "company" in wanted else {})
