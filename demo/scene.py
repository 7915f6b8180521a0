"""The contents of an image as frozen dataclasses: the ground truth of every drawing."""

from __future__ import annotations

from dataclasses import dataclass, field

GENDERS = ("man", "woman")
SKINS = ("fair", "light", "tan", "brown", "dark")
HAIR_STYLES = {
    "man": ("short", "buzz", "swept", "curly", "spiky", "afro", "bald", "long"),
    "woman": ("long", "bob", "ponytail", "bun", "wavy", "curly", "short", "afro"),
}
HAIR_COLOURS = ("black", "brown", "blonde", "red", "gray")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
EYE_COLOURS = ("brown", "blue", "green", "gray")
BUILDS = ("slim", "average", "broad")
SHIRT_COLOURS = (
    "red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "white", "gray", "black",
)  # fmt: skip
SHIRT_STYLES = ("plain", "striped", "collared")
EXPRESSIONS = ("neutral", "slight smile", "smiling", "laughing", "surprised", "sad", "angry")
FRAMINGS = ("close-up", "portrait", "half", "full")
PLACES = ("kitchen", "forest", "street", "beach", "office", "plain")
THINGS = ("sunglasses", "umbrella", "hat")
FLAWS = ("blurry", "distorted", "extra limb", "missing limb")


@dataclass(frozen=True)
class Traits:
    """Features that captions never mention, from -1 to 1 with 0 average; only images show them.

    `mole` is its position: near 0 none, else left or right by sign, lower or higher by magnitude.
    """

    face_width: float = 0.0
    face_height: float = 0.0
    jaw: float = 0.0
    chin: float = 0.0
    eye_spacing: float = 0.0
    eye_size: float = 0.0
    eye_tilt: float = 0.0
    brow_tilt: float = 0.0
    brow_thickness: float = 0.0
    brow_height: float = 0.0
    nose_length: float = 0.0
    nose_width: float = 0.0
    mouth_width: float = 0.0
    mouth_height: float = 0.0
    lips: float = 0.0
    ear_size: float = 0.0
    hairline: float = 0.0
    hair_volume: float = 0.0
    hair_tone: float = 0.0
    skin_tone: float = 0.0
    freckles: float = -1.0
    blush: float = 0.0
    mole: float = 0.0
    neck: float = 0.0
    sleeves: float = 0.0
    trousers: float = 0.0


@dataclass(frozen=True)
class Identity:
    """A person: attributes that captions may mention, and traits that they never do."""

    gender: str = "man"
    skin: str = "light"
    hair_style: str = "short"
    hair_colour: str = "brown"
    beard: str = "none"
    eyes: str = "brown"
    build: str = "average"
    shirt_colour: str = "blue"
    shirt_style: str = "plain"
    glasses: bool = False
    wrinkles: bool = False
    traits: Traits = field(default_factory=Traits)


@dataclass(frozen=True)
class Pose:
    """A body seen from the front; angles in degrees.

    `arms` (right upper, right fore, left upper, left fore) and `legs` (right thigh, right shin,
    left thigh, left shin), of the person's own right and left: 0 is straight down (arms: along the
    trunk), positive outwards, 180 straight up. `lean` of the trunk and `tilt` of the head are
    clockwise in the image. `yaw` and `pitch` of the head are -1 to 1, positive towards the
    image's right and down.
    """

    name: str = "standing"
    arms: tuple[float, float, float, float] = (8.0, 4.0, 8.0, 4.0)
    legs: tuple[float, float, float, float] = (4.0, 2.0, 4.0, 2.0)
    lean: float = 0.0
    tilt: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0


@dataclass(frozen=True)
class Scene:
    """One image: who, how, where, with what and with whom.

    `companion` stands beside the person. `flaw` is None or one of FLAWS, for spoiled drawings that
    give negative prompts their meaning. `variation` seeds the details of the place.
    """

    identity: Identity = field(default_factory=Identity)
    expression: str = "neutral"
    framing: str = "portrait"
    pose: Pose = field(default_factory=Pose)
    place: str = "plain"
    things: tuple[str, ...] = ()
    companion: Identity | None = None
    flaw: str | None = None
    variation: int = 0
