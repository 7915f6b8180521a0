"""Draws plain backdrop, kitchen and office (frame: x centred on 0, y from 0 to 1)."""

from __future__ import annotations

import numpy as np

from .drawing import Canvas, Colour, Random, darker, hexed, lighter, one_of


def plain_light(random: Random) -> tuple[Colour, Colour]:
    base = one_of(
        random,
        "#E9DFD0",
        "#CFE0E8",
        "#F0CFC6",
        "#D7E4CF",
        "#DCD6EA",
        "#C9CDD6",
        "#F3E3B3",
        "#A9C4CC",
    )
    return lighter(base, 0.35), darker(base, 0.10)


def plain(view: Canvas, half: float, random: Random) -> None:
    """A studio backdrop with a pool of light."""
    x, y = random.uniform(-0.15, 0.15), random.uniform(0.30, 0.5)
    view.glow(x, y, 0.62, hexed("#FFFFFF"), 0.05)


def kitchen_light(random: Random) -> tuple[Colour, Colour]:
    wall = one_of(random, "#F6E7C8", "#E3ECDD", "#F7DFCB", "#DCE9EC")
    return wall, wall


def kitchen(view: Canvas, half: float, random: Random) -> None:
    """Cupboards over a tiled wall, a worktop with pots, a stove with its hood, a window."""
    wood = one_of(random, "#C98F5B", "#8FB0A4", "#E9E2D4", "#6F93AD", "#D9A766")
    tile = hexed("#FFFFFF")
    for y in np.arange(0.35, 0.62, 0.065):
        view.box(-1.4, y, 1.4, y + 0.007, tile, 0.65)
    for k, x in enumerate(np.arange(-1.4, 1.4, 0.09)):
        view.box(x, 0.35, x + 0.007, 0.62, tile, 0.65 if k % 2 else 0.5)
    _cupboards(view, half, wood)
    _hood(view, half)
    view.box(-1.4, 0.60, 1.4, 0.645, hexed("#F2EBDF"))
    view.box(-1.4, 0.645, 1.4, 0.66, darker(wood, 0.5))
    view.box(-1.4, 0.66, 1.4, 0.955, darker(wood, 0.12))
    for k in range(-5, 6):
        x = k * 0.24 + 0.02
        view.card(x, 0.69, x + 0.20, 0.92, 0.012, wood)
        view.box(x + 0.07, 0.705, x + 0.13, 0.718, darker(wood, 0.6))
    view.box(-1.4, 0.955, 1.4, 1.3, hexed("#B98F6A"))
    _worktop(view, half, random)


def _cupboards(view: Canvas, half: float, wood: Colour) -> None:
    x0 = -half - 0.30
    view.box(x0, -0.3, -half * 0.42, 0.34, darker(wood, 0.30))
    for k in range(3):
        x = -half * 0.42 - 0.20 * (k + 1)
        view.card(x + 0.01, -0.3, x + 0.19, 0.325, 0.012, lighter(wood, 0.10))
        view.card(x + 0.035, -0.3, x + 0.165, 0.295, 0.010, wood)
        view.oval(x + 0.165 if k % 2 else x + 0.035, 0.26, 0.011, 0.011, hexed("#5B4A42"))


def _hood(view: Canvas, half: float) -> None:
    """Extractor hood, shelf with jars, and the stove's pot at the right."""
    steel, x = hexed("#B9C2CB"), half * 0.72
    view.box(x - 0.07, -0.3, x + 0.07, 0.17, darker(steel, 0.12))
    view.fill(((x - 0.09, 0.15), (x + 0.09, 0.15), (x + 0.19, 0.30), (x - 0.19, 0.30)), steel)
    view.box(x - 0.19, 0.30, x + 0.19, 0.335, darker(steel, 0.25))


def _worktop(view: Canvas, half: float, random: Random) -> None:
    x = half * 0.72
    pot = one_of(random, "#C9484B", "#3F6F8F", "#E0A23C")
    view.card(x - 0.12, 0.475, x + 0.12, 0.60, 0.025, pot)
    view.box(x - 0.135, 0.465, x + 0.135, 0.487, darker(pot, 0.3))
    view.oval(x, 0.452, 0.022, 0.018, darker(pot, 0.4))
    view.card(x - 0.17, 0.505, x - 0.11, 0.53, 0.01, darker(pot, 0.3))
    view.card(x + 0.11, 0.505, x + 0.17, 0.53, 0.01, darker(pot, 0.3))
    for k, colour in enumerate(("#D9D2C3", "#C9764B", "#7FA37A")):
        jar = -half * 0.96 + 0.135 * k
        view.card(jar, 0.48 + 0.03 * (k % 2), jar + 0.10, 0.60, 0.02, hexed(colour))
        view.box(
            jar + 0.005,
            0.465 + 0.03 * (k % 2),
            jar + 0.095,
            0.49 + 0.03 * (k % 2),
            hexed("#7A5A45"),
        )


def office_light(random: Random) -> tuple[Colour, Colour]:
    wall = one_of(random, "#DDE3EA", "#E9E6E1", "#D5DEE3")
    return wall, darker(wall, 0.05)


def office(view: Canvas, half: float, random: Random) -> None:
    """A window with blinds over the town, shelves with files, a desk with a screen, a plant."""
    _window(view, half)
    _shelves(view, half, random)
    view.oval(half * 0.06, 0.10, 0.062, 0.062, hexed("#4A5568"))
    view.oval(half * 0.06, 0.10, 0.050, 0.050, hexed("#FFFFFF"))
    view.stroke(
        ((half * 0.06, 0.066), (half * 0.06, 0.10), (half * 0.06 + 0.028, 0.11)),
        0.009,
        hexed("#4A5568"),
    )
    view.box(-1.4, 0.88, 1.4, 1.4, hexed("#8E97A6"))
    desk = one_of(random, "#C79A6B", "#E6DFD3", "#9A7355")
    view.box(-half - 0.4, 0.635, half + 0.4, 0.675, desk)
    view.box(-half - 0.4, 0.675, half + 0.4, 0.69, darker(desk, 0.4))
    for x in (-half * 0.96, half * 0.55):
        view.box(x, 0.69, x + 0.20, 0.93, darker(desk, 0.18))
        for y in (0.71, 0.785, 0.86):
            view.card(x + 0.012, y, x + 0.188, y + 0.06, 0.008, desk)
    _screen(view, half * 0.78)
    _plant(view, -half * 0.84)


def _window(view: Canvas, half: float) -> None:
    x0, x1 = -half - 0.25, -half * 0.40
    view.box(x0, 0.02, x1, 0.50, hexed("#FFFFFF"))
    view.box(x0 + 0.018, 0.04, x1 - 0.018, 0.48, hexed("#AED8F0"))
    for k, top in enumerate((0.30, 0.22, 0.34, 0.27, 0.20)):
        left = x1 - 0.018 - 0.085 * (k + 1)
        view.box(left, top, left + 0.075, 0.48, hexed("#7FA9C9") if k % 2 else hexed("#93BAD6"))
    for y in np.arange(0.05, 0.26, 0.032):
        view.box(x0 + 0.018, y, x1 - 0.018, y + 0.014, hexed("#FFFFFF"), 0.9)


def _shelves(view: Canvas, half: float, random: Random) -> None:
    x0, x1 = half * 0.46, half + 0.40
    files = ("#3F6FA8", "#C95B55", "#E9B44C", "#5E9C7F", "#6B6F85", "#EDE8DF")
    for y in (0.19, 0.40):
        view.box(x0, y, x1, y + 0.018, hexed("#8A6A52"))
        for x in np.arange(x0 + 0.015, x1, 0.052):
            high = 0.115 + 0.045 * random.random()
            view.box(x, y - high, x + 0.042, y, hexed(files[int(random.integers(6))]))
            view.box(x + 0.012, y - 0.7 * high, x + 0.030, y - 0.5 * high, hexed("#FFFFFF"), 0.8)


def _screen(view: Canvas, x: float) -> None:
    view.box(x - 0.02, 0.58, x + 0.02, 0.63, hexed("#4A4F5C"))
    view.box(x - 0.07, 0.622, x + 0.07, 0.636, hexed("#4A4F5C"))
    view.card(x - 0.17, 0.425, x + 0.17, 0.595, 0.015, hexed("#2E323D"))
    view.box(x - 0.153, 0.44, x + 0.153, 0.578, hexed("#5FA3D9"))
    for k, wide in enumerate((0.20, 0.26, 0.14, 0.22)):
        view.box(x - 0.13, 0.458 + 0.028 * k, x - 0.13 + wide, 0.47 + 0.028 * k, hexed("#DDEFFB"))


def _plant(view: Canvas, x: float) -> None:
    for dx, dy, shade in (
        (-0.10, -0.10, 0.0),
        (0.10, -0.11, 0.2),
        (-0.045, -0.17, 0.1),
        (0.05, -0.18, 0.0),
        (0.0, -0.13, 0.25),
    ):
        view.stroke(
            ((x, 0.56), (x + 0.6 * dx, 0.56 + 0.6 * dy), (x + dx, 0.56 + dy)),
            (0.02, 0.05, 0.008),
            darker(hexed("#4F9A62"), shade),
        )
    view.fill(
        ((x - 0.06, 0.545), (x + 0.06, 0.545), (x + 0.045, 0.636), (x - 0.045, 0.636)),
        hexed("#D77F57"),
    )
