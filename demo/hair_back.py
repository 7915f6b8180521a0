"""Draws hair behind the head and over the shoulders, in the head's frame."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin

import numpy as np

from .drawing import Canvas, mirrored, moved
from .face import Face

# Length of hanging hair, in heads, and how wavy it is.
_HANGING = {"long": (1.02, 0.0), "wavy": (0.94, 0.05), "bob": (0.50, 0.0)}


def draw_back(canvas: Canvas, face: Face, style: str) -> None:
    """Draws hair behind the neck and shoulders."""
    if style in _HANGING:
        _mass(canvas, face, *_HANGING[style])
    elif style == "afro":
        _afro(canvas, face)
    elif style == "ponytail":
        _ponytail(canvas, face)
    elif style == "bun":
        _bun(canvas, face)


def draw_locks(canvas: Canvas, face: Face, style: str) -> None:
    """Draws hair that falls over the shoulders, beside the face."""
    if style not in _HANGING:
        return
    low, wave = _HANGING[style]
    w, v = face.half_width() + 0.02, volume(face)
    for side, colour in ((-1, face.colours.hair), (1, face.colours.hair_shade)):
        lock = np.array(
            (
                (0.86 * w, -0.28),
                (w + 0.05 + v, 0.05),
                (w + 0.04 + v - wave, 0.40 * min(1.0, low + 0.2)),
                (w + 0.06 + v + wave, 0.68 * low + 0.1),
                (w + 0.01, low),
            )
        )
        if style == "bob":
            lock[3:] = lock[3] - (0.0, 0.04), lock[3]
        canvas.stroke(lock * (side, 1), (0.10, 0.17, 0.20, 0.19, 0.06), colour)


def volume(face: Face) -> float:
    """How far hair stands off the skull, in heads."""
    return 0.065 + 0.035 * face.identity.traits.hair_volume


def curls(
    canvas: Canvas,
    face: Face,
    points: Sequence[tuple[float, float]],
    radius: float,
    shade_from: float = 1.0,
) -> None:
    """Draws round curls, every other one with a highlight, in shade beyond x = `shade_from`."""
    c = face.colours
    for x, y in points:
        canvas.oval(x, y, radius, radius, c.hair if x < shade_from else c.hair_shade)
    for x, y in points[::2]:
        x, y = x - 0.3 * radius, y - 0.3 * radius
        canvas.oval(x, y, 0.34 * radius, 0.26 * radius, c.hair_light, 0.55)


def _mass(canvas: Canvas, face: Face, low: float, wave: float) -> None:
    w, v = face.half_width(), volume(face)
    right = (
        (0.0, -0.5 - v), (w + 0.02, -0.36), (w + 0.08 + v, 0.0), (w + 0.07 + v - wave, 0.28 * low),
        (w + 0.10 + v + wave, 0.62 * low), (w + 0.04 - wave, low), (0.6 * w, low + 0.02),
        (0.0, low - 0.02),
    )  # fmt: skip
    canvas.blob(moved(mirrored(right), -0.25 * face.shift(), 0.0), face.colours.hair_shade)


def _afro(canvas: Canvas, face: Face) -> None:
    radius = 0.56 + 0.10 * face.identity.traits.hair_volume
    canvas.oval(0.0, -0.24, radius + 0.03, radius, face.colours.hair)
    turns = np.linspace(-2.1, 2.1, 15)
    rim = [(radius * sin(a), -0.24 - radius * 0.97 * cos(a)) for a in turns]
    curls(canvas, face, rim, 0.10, shade_from=0.2)


def _ponytail(canvas: Canvas, face: Face) -> None:
    w, c = face.half_width(), face.colours
    swing = 1.5 * volume(face)
    tail = np.array(
        (
            (0.2, -0.42),
            (w + 0.12, -0.46),
            (w + 0.20 + swing, -0.12),
            (w + 0.13 + swing, 0.30),
            (w + 0.20, 0.62),
        )
    )
    tail *= (-1 if face.head.yaw > 0.2 else 1, 1)
    canvas.stroke(tail, (0.14, 0.19, 0.23, 0.20, 0.04), c.hair_shade)
    canvas.stroke(moved(tail, -0.03, 0.0), (0.04, 0.08, 0.10, 0.08, 0.02), c.hair)


def _bun(canvas: Canvas, face: Face) -> None:
    c, r = face.colours, 0.19 + 0.04 * face.identity.traits.hair_volume
    x, y = -0.3 * face.shift(), -0.60
    canvas.oval(x, y, r * 1.06, r, c.hair)
    fold = [(x + 0.7 * r * cos(a), y + 0.6 * r * sin(a)) for a in np.linspace(-0.6, 1.9, 4)]
    canvas.stroke(fold, 0.035, c.hair_shade)
    shine = [(x + 0.55 * r * cos(a), y + 0.55 * r * sin(a)) for a in np.linspace(3, 1.45 * pi, 4)]
    canvas.stroke(shine, 0.025, c.hair_light)
