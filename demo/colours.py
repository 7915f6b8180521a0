"""The palette: a person's colours in the light of a place."""

from __future__ import annotations

from dataclasses import dataclass

from .drawing import Colour, darker, hexed, lighter, mix
from .scene import Identity

SKIN = {
    name: hexed(text)
    for name, text in {
        "fair": "#F8D9C4",
        "light": "#F0C09A",
        "tan": "#D69C6C",
        "brown": "#A56B47",
        "dark": "#6F4632",
    }.items()
}
HAIR = {
    name: hexed(text)
    for name, text in {
        "black": "#2A2530",
        "brown": "#6E452B",
        "blonde": "#E6BC62",
        "red": "#BE5429",
        "gray": "#B3B5BE",
    }.items()
}
EYES = {
    name: hexed(text)
    for name, text in {
        "brown": "#5B3620",
        "blue": "#3D7FC4",
        "green": "#3F8F57",
        "gray": "#7C8894",
    }.items()
}
SHIRTS = {
    name: hexed(text)
    for name, text in {
        "red": "#CF4449",
        "orange": "#EC8738",
        "yellow": "#F3C649",
        "green": "#4D9C62",
        "teal": "#2C9A97",
        "blue": "#3A6DB8",
        "purple": "#7E59A8",
        "pink": "#F09DB5",
        "white": "#F4F1EA",
        "gray": "#8D94A0",
        "black": "#33333F",
    }.items()
}
TROUSERS = tuple(hexed(text) for text in ("#2F3E5C", "#5C6F8F", "#8A7458", "#3D3B45", "#C2AE8C"))
# Of umbrellas and hats.
CLOTH = tuple(
    hexed(text)
    for text in ("#D7484A", "#E9A23B", "#3F7FBF", "#4A9B78", "#8C62AE", "#E5739A", "#2FA3A8")
)
INK = hexed("#2B2233")
WHITE = hexed("#FFFDF8")
TEETH = hexed("#FBF7F0")

# Each place's light, and how much of it is mixed into a person's colours.
_LIGHT = {
    "kitchen": (hexed("#FFE9C8"), 0.05),
    "forest": (hexed("#CFE8A8"), 0.07),
    "street": (hexed("#3A3F7A"), 0.17),
    "beach": (hexed("#FFF3CF"), 0.06),
    "office": (hexed("#EAF2F8"), 0.04),
    "plain": (hexed("#FFFFFF"), 0.0),
}


@dataclass(frozen=True)
class Colours:
    """A person's colours; `_shade` is for the side away from the light, `_light` for highlights."""

    skin: Colour
    skin_shade: Colour
    skin_deep: Colour
    blush: Colour
    lip: Colour
    hair: Colour
    hair_shade: Colour
    hair_light: Colour
    brow: Colour
    iris: Colour
    shirt: Colour
    shirt_shade: Colour
    shirt_light: Colour
    trousers: Colour
    shoe: Colour
    white: Colour
    ink: Colour


def colours(identity: Identity, place: str) -> Colours:
    """The person's palette in the light of `place`."""
    traits = identity.traits
    light, share = _LIGHT[place]

    def lit(colour: Colour) -> Colour:
        return mix(colour, light, share)

    skin = SKIN[identity.skin]
    target = "#C97B4E" if traits.skin_tone > 0 else "#FFE8DC"
    skin = lit(mix(skin, hexed(target), 0.24 * abs(traits.skin_tone)))
    hair = HAIR[identity.hair_colour]
    hair = lit(
        darker(hair, 0.3 * -traits.hair_tone)
        if traits.hair_tone < 0
        else lighter(hair, 0.09 * traits.hair_tone)
    )
    shirt = lit(SHIRTS[identity.shirt_colour])
    trousers = TROUSERS[min(4, int((traits.trousers + 1) * 2.5))]
    dark = identity.skin in ("brown", "dark")
    rose = hexed("#B5483F") if dark else hexed("#E0685F")
    return Colours(
        skin=skin,
        skin_shade=darker(skin, 0.17),
        skin_deep=darker(skin, 0.34),
        blush=mix(skin, rose, 0.7),
        lip=mix(skin, rose, 0.62),
        hair=hair,
        hair_shade=darker(hair, 0.28),
        hair_light=lighter(hair, 0.22),
        brow=darker(hair, 0.30) if identity.hair_colour != "gray" else darker(hair, 0.15),
        iris=lit(EYES[identity.eyes]),
        shirt=shirt,
        shirt_shade=darker(shirt, 0.22),
        shirt_light=lighter(shirt, 0.25),
        trousers=lit(trousers),
        shoe=lit(hexed("#3B2F33") if traits.trousers > 0 else hexed("#EDE6DA")),
        white=lit(WHITE),
        ink=INK,
    )
