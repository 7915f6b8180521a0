"""Draws forest, street at midnight and beach (frame: x centred on 0, y from 0 to 1)."""

from __future__ import annotations

from math import sin

import numpy as np

from .drawing import Canvas, Colour, Random, darker, hexed, lighter, mix, one_of


def forest_light(random: Random) -> tuple[Colour, Colour]:
    sky = one_of(random, "#DDF0C8", "#F3F0C0", "#CFE9DA")
    return sky, mix(sky, hexed("#8FBF83"), 0.75)


def forest(view: Canvas, half: float, random: Random) -> None:
    """Three depths of trunks under leaves, light between them, ferns on the ground."""
    tone = one_of(random, "#3F7D4E", "#4F8A45", "#357A63")
    light = hexed("#E4F3BE")
    for depth, count, wide in ((0.62, 9, 0.030), (0.38, 7, 0.050)):
        colour = mix(tone, light, depth)
        for x in np.linspace(-1.15, 1.15, count) + random.uniform(-0.07, 0.07, count):
            view.fill(
                ((x - wide, -0.2), (x + wide, -0.2), (x + 1.3 * wide, 0.8), (x - 1.3 * wide, 0.8)),
                mix(colour, hexed("#7A5C49"), 0.25),
            )
        for x in np.linspace(-1.1, 1.1, count) + random.uniform(-0.05, 0.05, count):
            r = 0.16 + 0.05 * random.random()
            view.oval(x, 0.02 + 0.10 * random.random(), 1.25 * r, r, colour)
    for x in (-0.35, 0.05, 0.5):
        x += random.uniform(-0.1, 0.1)
        view.fill(
            ((x, -0.2), (x + 0.10, -0.2), (x - 0.10, 0.85), (x - 0.32, 0.85)),
            hexed("#FFFBD0"),
            0.22,
        )
    ground = mix(tone, hexed("#C9D77F"), 0.30)
    view.blob(
        (
            (-1.5, 0.74),
            (-0.7, 0.70),
            (0.0, 0.735),
            (0.7, 0.69),
            (1.5, 0.74),
            (1.5, 1.4),
            (-1.5, 1.4),
        ),
        ground,
    )
    view.blob(
        ((-0.24, 0.72), (0.15, 0.72), (0.35, 0.9), (0.75, 1.3), (-0.65, 1.3), (-0.30, 0.9)),
        hexed("#D8C79A"),
        0.75,
    )
    _near_trees(view, half, random, tone)
    _ferns(view, half, random, tone)


def _near_trees(view: Canvas, half: float, random: Random, tone: Colour) -> None:
    bark, leaf = one_of(random, "#6B4A3A", "#7A5840", "#5B4A45"), darker(tone, 0.22)
    for x, wide in ((-half * 0.84, 0.075), (half * 0.92, 0.06), (-half - 0.30, 0.08)):
        x += random.uniform(-0.03, 0.03)
        view.blob(
            (
                (x - wide, -0.3),
                (x + wide, -0.3),
                (x + 0.9 * wide, 0.5),
                (x + 1.9 * wide, 0.86),
                (x - 1.9 * wide, 0.86),
                (x - 0.9 * wide, 0.5),
            ),
            bark,
        )
        view.blob(
            (
                (x + 0.2 * wide, -0.3),
                (x + wide, -0.3),
                (x + 0.9 * wide, 0.5),
                (x + 1.8 * wide, 0.86),
                (x + 0.5 * wide, 0.84),
                (x + 0.3 * wide, 0.4),
            ),
            darker(bark, 0.35),
            0.8,
        )
    for x, y, r in (
        (-0.86, -0.02, 0.24),
        (-0.55, -0.06, 0.17),
        (0.9, 0.0, 0.25),
        (0.58, -0.08, 0.18),
        (-1.2, 0.1, 0.25),
        (1.25, 0.12, 0.25),
    ):
        view.oval(x * half * 2, y + random.uniform(-0.02, 0.02), 1.2 * r, r, leaf)
        view.oval(x * half * 2 - 0.3 * r, y - 0.2 * r, 0.6 * r, 0.5 * r, lighter(tone, 0.12), 0.6)


def _ferns(view: Canvas, half: float, random: Random, tone: Colour) -> None:
    for x in (-half * 0.95, -half * 0.55, half * 0.60, half * 0.98):
        x += random.uniform(-0.05, 0.05)
        for k in range(-2, 3):
            tip = (x + 0.075 * k, 0.80 + 0.02 * k * k)
            view.stroke(
                ((x, 0.94), (x + 0.03 * k, 0.85), tip),
                (0.012, 0.034, 0.006),
                darker(tone, 0.25) if k % 2 else lighter(tone, 0.15),
            )


def street_light(random: Random) -> tuple[Colour, Colour]:
    return one_of(random, "#0E1436", "#141238", "#0B1A3A"), one_of(
        random, "#4A3C78", "#5B3F6F", "#2F4A7D"
    )


def street(view: Canvas, half: float, random: Random) -> None:
    """Midnight between lit towers: moon, street lamps, lights out of focus, a yellow cab."""
    moon = random.uniform(-0.12, 0.2)
    view.glow(moon, 0.12, 0.16, hexed("#FFF3C4"), 0.05)
    view.oval(moon, 0.12, 0.045, 0.045, hexed("#FFF6D8"))
    for x, y in random.uniform((-1.2, -0.15), (1.2, 0.3), (12, 2)):
        view.oval(x, y, 0.005, 0.005, hexed("#FFFFFF"), 0.8)
    far, near = hexed("#2B2C5E"), hexed("#171A3D")
    for x in np.arange(-1.2, 1.2, 0.15):
        _tower(view, random, x, 0.13, random.uniform(0.22, 0.45), far, 0.040, 0.45)
    for x in (-half - 0.17, half * 0.50):
        _tower(view, random, x, half * 0.52 + 0.14, random.uniform(-0.12, 0.10), near, 0.060, 0.62)
    for y, high in ((0.46, 0.34), (0.58, 0.22), (0.68, 0.12)):
        view.box(-1.4, y, 1.4, y + high, hexed("#8F86C8"), 0.16)
    _neon(view, half, random)
    view.box(-1.4, 0.76, 1.4, 0.80, hexed("#3A3A60"))
    view.box(-1.4, 0.80, 1.4, 1.4, hexed("#23233F"))
    for x in np.arange(-1.3, 1.3, 0.26):
        view.fill(
            ((x, 0.90), (x + 0.13, 0.90), (x + 0.11, 0.925), (x - 0.02, 0.925)),
            hexed("#E9DFB8"),
            0.75,
        )
    _cab(view, half * random.uniform(0.62, 0.80), 0.835)
    for x in (-half * 0.62, half * 0.98, -half - 0.42):
        _lamp(view, x)
    for x, y, r in random.uniform((-1.1, 0.50, 0.014), (1.1, 0.74, 0.034), (14, 3)):
        view.oval(
            x, y, r, r, one_of(random, "#FFC857", "#FF8A5B", "#FFE9A8", "#7FD1E8", "#F25C78"), 0.55
        )


def _tower(
    view: Canvas,
    random: Random,
    x: float,
    wide: float,
    top: float,
    colour: Colour,
    pitch: float,
    lit: float,
) -> None:
    """Draws a building with rows of windows, of which a fraction `lit` is bright."""
    view.box(x, top, x + wide, 0.78, colour)
    columns = np.arange(x + 0.3 * pitch, x + wide - 0.6 * pitch, pitch)
    rows = np.arange(top + 0.5 * pitch, 0.72, 1.25 * pitch)
    chance = random.random((len(rows), len(columns)))
    for i, y in enumerate(rows):
        for j, w in enumerate(columns):
            if chance[i, j] < lit:
                tint = hexed("#FFD56B") if chance[i, j] < 0.7 * lit else hexed("#FFF0B8")
                view.box(w, y, w + 0.52 * pitch, y + 0.62 * pitch, tint, 0.95)


def _neon(view: Canvas, half: float, random: Random) -> None:
    x, colour = -half * 0.92, one_of(random, "#FF4F7B", "#3FE0D0", "#FF9B3F")
    view.card(x - 0.05, 0.40, x + 0.05, 0.64, 0.02, hexed("#2A1F4A"))
    view.card(x - 0.032, 0.42, x + 0.032, 0.62, 0.015, colour)
    for y in (0.45, 0.51, 0.57):
        view.box(x - 0.018, y, x + 0.018, y + 0.028, hexed("#FFF6E0"))


def _lamp(view: Canvas, x: float) -> None:
    view.box(x - 0.009, 0.24, x + 0.009, 0.84, hexed("#0F1028"))
    view.glow(x, 0.22, 0.17, hexed("#FFD98A"), 0.09)
    view.oval(x, 0.22, 0.034, 0.042, hexed("#FFF4CF"))
    view.box(x - 0.03, 0.258, x + 0.03, 0.27, hexed("#0F1028"))


def _cab(view: Canvas, x: float, y: float) -> None:
    yellow, dark = hexed("#F5BE2E"), hexed("#1B1B33")
    view.blob(
        (
            (x - 0.11, y - 0.07),
            (x - 0.06, y - 0.135),
            (x + 0.06, y - 0.135),
            (x + 0.12, y - 0.07),
            (x + 0.05, y - 0.04),
            (x - 0.05, y - 0.04),
        ),
        yellow,
    )
    view.card(x - 0.19, y - 0.08, x + 0.19, y + 0.005, 0.03, yellow)
    view.card(x - 0.075, y - 0.122, x - 0.006, y - 0.075, 0.01, hexed("#2F4A6F"))
    view.card(x + 0.006, y - 0.122, x + 0.075, y - 0.075, 0.01, hexed("#2F4A6F"))
    view.box(x - 0.03, y - 0.155, x + 0.03, y - 0.133, hexed("#FFF4CF"))
    for dx in (-0.11, 0.11):
        view.oval(x + dx, y + 0.005, 0.038, 0.038, dark)
    view.oval(x - 0.185, y - 0.045, 0.018, 0.018, hexed("#FFF9DC"))


def beach_light(random: Random) -> tuple[Colour, Colour]:
    return one_of(random, "#6FC3E8", "#7FCDE6", "#8FC7F0"), one_of(
        random, "#FFF1D0", "#FFE3C4", "#E8F6F4"
    )


def beach(view: Canvas, half: float, random: Random) -> None:
    """Sun, clouds, sea in bands with a sail, sand, a palm and a parasol."""
    sun = random.uniform(-0.30, 0.1)
    view.glow(sun, 0.14, 0.20, hexed("#FFF6C9"), 0.12)
    view.oval(sun, 0.14, 0.075, 0.075, hexed("#FFE27A"))
    for x, y in random.uniform((-0.9, 0.05), (0.9, 0.30), (4, 2)):
        for dx, r in ((-0.07, 0.035), (0.0, 0.05), (0.07, 0.033)):
            view.oval(x + dx, y, 1.3 * r, r, hexed("#FFFFFF"), 0.85)
    sea = one_of(random, "#2F9FC4", "#35A9B5", "#2F86C4")
    view.box(-1.4, 0.47, 1.4, 0.80, sea)
    for y, share in ((0.53, 0.10), (0.59, 0.22), (0.65, 0.36)):
        wave = [(x, y + 0.008 * sin(14 * x + 40 * y)) for x in np.linspace(-1.4, 1.4, 15)]
        view.fill((*wave, (1.4, 0.8), (-1.4, 0.8)), lighter(sea, share))
    x = half * random.uniform(0.35, 0.6)
    view.fill(((x, 0.33), (x + 0.085, 0.46), (x, 0.46)), hexed("#FFFFFF"))
    view.fill(((x - 0.012, 0.36), (x - 0.012, 0.46), (x - 0.06, 0.46)), hexed("#F2695C"))
    view.fill(
        ((x - 0.085, 0.468), (x + 0.10, 0.468), (x + 0.07, 0.492), (x - 0.06, 0.492)),
        hexed("#7A4A38"),
    )
    shore = [(x, 0.70 + 0.012 * sin(7 * x)) for x in np.linspace(-1.4, 1.4, 13)]
    view.fill((*np.array(shore) - (0, 0.022), (1.4, 1.4), (-1.4, 1.4)), hexed("#FFFFFF"), 0.85)
    sand = one_of(random, "#F2D7A0", "#F5DFB8", "#EBCB94")
    view.fill((*shore, (1.4, 1.4), (-1.4, 1.4)), sand)
    for x, y in random.uniform((-1.2, 0.76), (1.2, 1.0), (10, 2)):
        view.oval(x, y, 0.022, 0.006, darker(sand, 0.14))
    _palm(view, -half * 0.86)
    _parasol(view, half * 0.86, random)


def _palm(view: Canvas, x: float) -> None:
    view.stroke(
        ((x - 0.06, 0.88), (x - 0.05, 0.6), (x + 0.02, 0.20)),
        (0.075, 0.055, 0.04),
        hexed("#A3744C"),
    )
    leaf = hexed("#3F9A5F")
    for dx, dy, shade in (
        (-0.28, 0.14, 0.2),
        (0.28, 0.15, 0.3),
        (-0.25, -0.05, 0.0),
        (0.26, -0.04, 0.1),
        (0.03, -0.18, 0.0),
        (-0.12, 0.24, 0.3),
        (0.15, 0.25, 0.35),
    ):
        tip = (x + 0.02 + dx, 0.20 + dy)
        view.stroke(
            ((x + 0.02, 0.19), (x + 0.02 + 0.55 * dx, 0.12 + 0.35 * dy), tip),
            (0.03, 0.065, 0.006),
            darker(leaf, shade),
        )


def _parasol(view: Canvas, x: float, random: Random) -> None:
    colour = one_of(random, "#EE5F5B", "#F6A43C", "#4B8FD0")
    view.box(x - 0.008, 0.42, x + 0.008, 0.86, hexed("#F4EEE2"))
    edges = np.linspace(-0.24, 0.24, 7)
    for k in range(6):
        a, b = edges[k], edges[k + 1]
        view.blob(
            (
                (x, 0.36),
                (x, 0.36),
                (x + 0.8 * a, 0.42),
                (x + a, 0.515),
                (x + a, 0.515),
                (x + b, 0.515),
                (x + b, 0.515),
                (x + 0.8 * b, 0.42),
            ),
            colour if k % 2 else hexed("#FFF8EC"),
        )
