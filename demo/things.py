"""Draws sunglasses, glasses, hat and umbrella."""

from __future__ import annotations

from math import pi, sin

import numpy as np

from .colours import CLOTH, INK, WHITE
from .drawing import Array, Canvas, Colour, darker, hexed, lighter, moved
from .face import Face
from .skeleton import ear_at, eye_at

_LENS, _GLINT = hexed("#1E2030"), hexed("#8FA3C8")
_RING = np.stack((np.cos(np.linspace(0, 2 * pi, 11)), np.sin(np.linspace(0, 2 * pi, 11))), axis=1)


def draw_worn(canvas: Canvas, face: Face, worn: tuple[str, ...]) -> None:
    """Draws what is worn on the head, in its frame."""
    if "sunglasses" in worn:
        _spectacles(canvas, face, dark=True)
    elif face.identity.glasses:
        _spectacles(canvas, face, dark=False)
    if "hat" in worn:
        _hat(canvas, face)


def _spectacles(canvas: Canvas, face: Face, dark: bool) -> None:
    ex, ey, ez = eye_at(face.identity.traits)
    frame = _LENS if dark else INK
    for side in (-1, 1):
        x, y = face.at(side * ex, ey + 0.012, ez + 0.06)
        size = np.array((0.148, 0.118) if dark else (0.132, 0.112))
        size[0] *= face.narrowing(side * ex)
        if side * face.head.yaw < 0.75:
            hinge = face.at(side * ear_at(face.identity.traits)[0], 0.0, 0.02)
            canvas.stroke(((x + side * size[0], y - 0.03), hinge), 0.035, frame)
        if dark:
            _dark_lens(canvas, moved(((0, 0),), x, y), size, side)
        else:
            canvas.oval(x, y, size[0], size[1], WHITE, 0.18)
            canvas.stroke(moved(_RING * size, x, y), 0.027, frame)
    bridge = [
        face.at(x, ey + y, ez + 0.08) for x, y in ((-0.06, -0.02), (0, -0.035), (0.06, -0.02))
    ]
    canvas.stroke(bridge, 0.034, frame)


def _dark_lens(canvas: Canvas, centre: Array, size: Array, side: int) -> None:
    brow = ((-1, -0.75), (-1, -0.75), (0, -1), (1, -0.75), (1, -0.75))
    lens = (*brow, (0.86, 0.5), (0.25, 1), (-0.45, 0.95), (-0.92, 0.4))
    canvas.blob(np.array(lens) * size * (side, 1) + centre, _LENS)
    canvas.fill(
        np.array(((-0.5, -0.5), (-0.05, -0.62), (-0.55, 0.25))) * size + centre, _GLINT, 0.6
    )


def cloth(variation: int) -> Colour:
    """The colour of a scene's umbrella."""
    return CLOTH[variation // 2 % len(CLOTH)]


def _hat(canvas: Canvas, face: Face) -> None:
    """Draws a felt hat with a band and a brim."""
    colour = hexed("#3F5870" if face.identity.hair_colour == "brown" else "#7A5238")
    w = face.half_width() + 0.09
    hat = canvas.frame(0.35 * face.shift(), -0.27 + 0.03 * face.head.pitch)
    half = ((0.25, -0.53), (0.72, -0.49), (0.93, -0.25), (1, 0), (1, 0))
    left = [(-x, y) for x, y in reversed(half)]
    hat.blob(np.array((*left, (0, -0.49), *half, (0, 0.04))) * (w, 1), colour)
    shade = ((0.45, -0.51), (0.80, -0.41), (0.97, 0), (0.97, 0), (0.62, 0), (0.62, 0))
    hat.blob(np.array(shade) * (w, 1), darker(colour, 0.35), 0.7)
    band = ((-1, -0.13), (0, -0.09), (1, -0.13), (1, 0), (0, 0.04), (-1, 0))
    hat.fill(np.array(band) * (w, 1), darker(colour, 0.7))
    brim = (
        (-w - 0.27, -0.01), (-0.6 * w, -0.05), (0.0, -0.02), (0.6 * w, -0.05), (w + 0.27, -0.01),
        (0.65 * w, 0.085), (0.0, 0.105), (-0.65 * w, 0.085),
    )  # fmt: skip
    hat.blob(brim, lighter(colour, 0.12))
    below = ((-0.8 * w, 0.085), (0.0, 0.12), (0.8 * w, 0.085))
    hat.stroke(below, (0.01, 0.035, 0.01), face.colours.skin_deep, 0.6)


def draw_umbrella(
    canvas: Canvas, x: float, y: float, over: float, top: float, colour: Colour
) -> None:
    """Draws an open umbrella held at (x, y), its canopy centred on x = `over` below y = `top`."""
    rim = top + 0.66
    lean = np.array((x, 0.35 * over + 0.65 * x, 0.5 * over + 0.5 * x))
    shaft = ((x, y + 0.22), (lean[0], y - 0.1), (lean[1], rim), (lean[2], top + 0.1))
    canvas.stroke(shaft, 0.055, hexed("#5B4A42"))
    canvas.fill(((over, top - 0.10), (over + 0.03, top + 0.02), (over - 0.03, top + 0.02)), INK)
    ribs = np.linspace(-1.22, 1.22, 7)
    for k, shade in enumerate((0.0, 0.16, 0.0, 0.20, 0.08, 0.30)):
        panel = _panel(float(ribs[k]), float(ribs[k + 1]), rim - top)
        cloth_now = darker(colour, shade) if shade else lighter(colour, 0.10)
        canvas.fill(moved(panel, over, rim), cloth_now)


def _panel(a: float, b: float, height: float) -> Array:
    """One cloth panel between the ribs that end at x = `a` and `b`, scalloped below."""
    turn = np.linspace(0, pi / 2, 7)
    left = np.stack((a * np.sin(turn), -height * np.cos(turn)), axis=1)
    right = np.stack((b * np.sin(turn), -height * np.cos(turn)), axis=1)[::-1]
    hem = [(a + (b - a) * t, -0.10 * sin(pi * t)) for t in (0.25, 0.5, 0.75)]
    return np.concatenate((left, hem, right))
