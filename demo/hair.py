"""Draws hair on the skull and over the forehead, in the head's frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import cos, sin

import numpy as np

from .drawing import Canvas, moved
from .face import Face
from .hair_back import curls, volume

Line = Sequence[tuple[float, float]]

# Styles that lie flat under a hat.
_UNDER_HAT = {"swept": "short", "spiky": "short", "bun": "bob", "afro": "curly"}


def worn(style: str, hat: bool) -> str:
    """The style as visible with or without a hat."""
    return _UNDER_HAT.get(style, style) if hat else style


def draw_front(canvas: Canvas, face: Face, style: str) -> None:
    """Draws the hair on the skull."""
    _FRONTS[style](canvas, face)


def _hairline(face: Face) -> float:
    """Height of the hairline over the middle of the forehead."""
    return -0.265 - 0.075 * face.identity.traits.hairline


def _cap(canvas: Canvas, face: Face, rise: float, low: float, line: Line) -> None:
    """Draws a mass of hair from `rise` above the crown to `low` at the temples.

    `line` is the hairline from left to right, with x as a fraction of the half width; it follows
    the turn of the head.
    """
    c, w = face.colours, face.half_width() + 0.02
    top = -0.5 - rise
    right = np.array(
        (
            (0.0, top),
            (0.42 * w, top + 0.025),
            (0.80 * w + 0.3 * rise, -0.40 - 0.5 * rise),
            (w + 0.45 * rise, -0.16),
            (w, low),
        )
    )
    left = right[:0:-1] * (-1, 1)
    shift, pitch = face.shift() * 0.55, 0.05 * face.head.pitch
    inner = [(x * w + shift * (1 - 0.6 * abs(x)), y + pitch) for x, y in reversed(line)]
    temples = ((0.90 * w, low), (-0.90 * w, low))
    corners = left[:1], right[-1:], temples[:1], inner, temples[1:]
    canvas.blob(np.concatenate((corners[0], left, right, *corners[1:])), c.hair)
    shade = np.concatenate((right[:1], right, right[-1:], (right * (0.74, 0.86))[-2:0:-1]))
    canvas.blob(shade, c.hair_shade, 0.55)
    shine = ((-0.62 * w, -0.36), (-0.42 * w, top + 0.12), (-0.10 * w, top + 0.075))
    canvas.stroke(shine, (0.012, 0.034, 0.012), c.hair_light, 0.75)


def _even_line(y: float, temple: float, wave: float) -> Line:
    """A hairline at height `y`, raised by `wave` between the middle and the temples."""
    half = ((0.0, y), (0.40, y - wave), (0.75, y), (0.85, temple))
    return [(-x, h) for x, h in half[:0:-1]] + list(half)


def _short(canvas: Canvas, face: Face) -> None:
    y = _hairline(face)
    line = (
        (-0.84, -0.10), (-0.70, y + 0.03), (-0.35, y - 0.035), (0.05, y + 0.015),
        (0.45, y - 0.01), (0.74, y + 0.04), (0.84, -0.10),
    )  # fmt: skip
    _cap(canvas, face, volume(face), 0.02, line)


def _buzz(canvas: Canvas, face: Face) -> None:
    _cap(canvas, face, 0.015, -0.03, _even_line(_hairline(face) - 0.02, -0.12, 0.01))


def _swept(canvas: Canvas, face: Face) -> None:
    """A quiff over short sides."""
    y, c = _hairline(face) - 0.02, face.colours
    _cap(canvas, face, 0.03, 0.0, _even_line(y - 0.03, -0.08, 0.01))
    w, v, s = face.half_width(), 1.6 * volume(face), 0.4 * face.shift()
    quiff = (
        (-0.78 * w, y - 0.02), (-0.92 * w, -0.46), (-0.55 * w, -0.56 - v), (0.10 * w, -0.60 - v),
        (0.75 * w, -0.55 - 0.8 * v), (0.98 * w, -0.42), (0.80 * w, y - 0.02), (0.30 * w, y - 0.06),
        (-0.30 * w, y + 0.012),
    )  # fmt: skip
    canvas.blob(moved(quiff, s, 0.0), c.hair)
    strand = (
        (-0.55 * w, y - 0.05),
        (-0.30 * w, -0.46 - 0.6 * v),
        (0.25 * w, -0.54 - 0.75 * v),
    )
    for along, colour in ((0.0, c.hair_light), (0.24 * w, c.hair_shade)):
        canvas.stroke(moved(strand, s + along, 0.0), (0.012, 0.030, 0.010), colour, 0.8)


def _curly(canvas: Canvas, face: Face) -> None:
    y, rise = _hairline(face) + 0.02, 1.5 * volume(face)
    _cap(canvas, face, rise, 0.0, _even_line(y, -0.10, 0.02))
    w = face.half_width()
    turns = np.linspace(-1.75, 1.75, 10)
    rim = [((w + 0.03) * sin(a), -0.17 - (0.35 + rise) * cos(a)) for a in turns]
    curls(canvas, face, rim, 0.105, shade_from=0.2)
    fringe = [(x * w + 0.55 * face.shift(), y - 0.015) for x in (-0.58, -0.2, 0.2, 0.58)]
    curls(canvas, face, fringe, 0.10, shade_from=0.2)


def _spiky(canvas: Canvas, face: Face) -> None:
    y, c = _hairline(face), face.colours
    _cap(canvas, face, 0.03, 0.0, _even_line(y, -0.10, 0.03))
    w, tall = face.half_width() + 0.02, 1.25 + 3.75 * volume(face)
    turns = enumerate(np.linspace(-1.35, 1.35, 13))
    reach = [(a, tall if k % 2 else 1.0) for k, a in turns]
    spikes = [(r * w * sin(a), -0.14 - r * 0.40 * cos(a)) for a, r in reach]
    fringe = ((0.5, -0.04), (0.2, 0.05), (0.0, -0.03), (-0.25, 0.06), (-0.5, -0.03))
    s = 0.4 * face.shift()
    canvas.fill(moved((*spikes, *((x * w, y + dy) for x, dy in fringe)), s, 0.0), c.hair)
    shade = (*spikes[7:], (0.75 * w, -0.34), (0.4 * w, -0.42))
    canvas.fill(moved(shade, s, 0.0), c.hair_shade, 0.6)


def _afro(canvas: Canvas, face: Face) -> None:
    y, w = _hairline(face) + 0.01, face.half_width()
    _cap(canvas, face, 0.06, 0.0, _even_line(y, -0.10, 0.02))
    fringe = [(x * w + 0.55 * face.shift(), y - 0.03) for x in (-0.7, -0.35, 0.0, 0.35, 0.7)]
    curls(canvas, face, fringe, 0.075)


def _long(canvas: Canvas, face: Face) -> None:
    """A middle or side parting; the sides frame the face."""
    y = _hairline(face)
    part = 0.35 if face.identity.traits.hair_tone > 0 else -0.05
    line = (
        (-0.90, 0.06), (-0.86, -0.12), (-0.60 + 0.3 * part, y + 0.07), (part, y - 0.09),
        (part, y - 0.09), (0.62 + 0.2 * part, y + 0.07), (0.86, -0.12), (0.90, 0.06),
    )  # fmt: skip
    _cap(canvas, face, volume(face) + 0.015, 0.12, line)


def _bob(canvas: Canvas, face: Face) -> None:
    """A straight fringe."""
    y = _hairline(face) + 0.075
    half = ((0.0, y + 0.016), (0.40, y + 0.012), (0.84, y), (0.88, 0.06))
    line = [(-x, h) for x, h in half[:0:-1]] + list(half)
    _cap(canvas, face, volume(face) + 0.015, 0.12, line)


def _tied(canvas: Canvas, face: Face) -> None:
    """Combed back, tight to the skull."""
    _cap(canvas, face, 0.035, 0.02, _even_line(_hairline(face) - 0.05, -0.06, -0.02))


def _bald(canvas: Canvas, face: Face) -> None:
    w = face.half_width()
    shine = ((-0.50 * w, -0.34), (-0.28 * w, -0.415), (-0.05, -0.435))
    canvas.stroke(shine, (0.015, 0.04, 0.015), face.colours.white, 0.45)


_FRONTS: dict[str, Callable[[Canvas, Face], None]] = {
    "short": _short,
    "buzz": _buzz,
    "swept": _swept,
    "curly": _curly,
    "spiky": _spiky,
    "afro": _afro,
    "bald": _bald,
    "long": _long,
    "wavy": _long,
    "bob": _bob,
    "ponytail": _tied,
    "bun": _tied,
}
