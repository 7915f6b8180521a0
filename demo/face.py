"""Draws the head without its features. Frame: origin at the head's centre, unit one head."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, sin

import numpy as np

from .colours import Colours
from .drawing import Array, Canvas, mirrored
from .scene import Identity
from .skeleton import YAW, Head, ear_at


@dataclass(frozen=True)
class Expression:
    """A facial expression: mouth curve (positive is up) and opening, brows, and lids."""

    curve: float = 0.0
    opening: float = 0.0
    width: float = 1.0
    raised: float = 0.0
    frown: float = 0.0
    lids: float = 1.0


EXPRESSIONS = {
    "neutral": Expression(),
    "slight smile": Expression(curve=0.6, width=1.1),
    "smiling": Expression(curve=1.0, opening=0.55, width=1.3, raised=0.2, lids=0.92),
    "laughing": Expression(curve=1.0, opening=1.2, width=1.35, raised=0.5, lids=0.0),
    "surprised": Expression(opening=1.0, width=0.6, raised=1.3, lids=1.22),
    "sad": Expression(curve=-0.9, raised=0.3, frown=-1.2, lids=0.85),
    "angry": Expression(curve=-0.45, width=0.95, raised=-0.5, frown=1.5, lids=0.88),
}


@dataclass(frozen=True)
class Face:
    """One person's head in its current pose, as the drawing functions take it."""

    identity: Identity
    head: Head
    colours: Colours
    expression: Expression

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        return self.head.face(x, y, z)

    def shift(self) -> float:
        """How far turning the head shifts features on its front, in heads."""
        return 0.30 * sin(self.head.yaw * YAW)

    def narrowing(self, x: float) -> float:
        """Foreshortening of a feature at `x` on the turned head."""
        return max(0.45, cos(self.head.yaw * YAW + 1.1 * x))

    def half_width(self) -> float:
        return 0.385 * (1 + 0.13 * self.identity.traits.face_width)

    def chin_y(self) -> float:
        return 0.5 * (1 + 0.09 * self.identity.traits.face_height)


def outline(face: Face, grow: float = 0.0) -> Array:
    """Outline of skull and jaw, (12, 2), clockwise from the crown; enlarged by `grow` heads."""
    traits = face.identity.traits
    w, chin = face.half_width(), face.chin_y()
    jaw = w * (0.80 + 0.12 * traits.jaw - (0.05 if face.identity.gender == "woman" else 0.0))
    point = 0.15 * (1 + 0.35 * traits.chin)
    right = np.array(
        [
            (0.0, -0.5),
            (w * 0.64, -0.42),
            (w * 0.98, -0.15),
            (w, 0.06),
            (jaw, 0.29 * chin / 0.5),
            (point + 0.02, chin - 0.045),
            (0.0, chin),
        ]
    )
    shape = mirrored(right)
    shape *= 1 + grow / 0.45
    # The jaw follows the turn of the head more than the skull does.
    shape[:, 0] += face.shift() * 0.30 * np.clip(shape[:, 1] / 0.5 + 0.35, 0, 1.3)
    return shape


def draw_ears(canvas: Canvas, face: Face) -> None:
    """Draws the ears behind the face; the one on the far side of a turned head is hidden."""
    size = 1 + 0.30 * face.identity.traits.ear_size
    x, y, z = ear_at(face.identity.traits)
    for side in (-1, 1):
        if side * face.head.yaw > 0.55:
            continue
        ex, ey = face.at(side * (x + 0.015 + 0.03 * (size - 1)), y, z - 0.05)
        canvas.oval(ex, ey, 0.068 * size, 0.105 * size, face.colours.skin)
        canvas.oval(ex - side * 0.008, ey, 0.036 * size, 0.065 * size, face.colours.skin_shade)


def draw_skin(canvas: Canvas, face: Face) -> None:
    """Draws the bare face with shading and cheeks."""
    shape = outline(face)
    canvas.blob(shape, face.colours.skin)
    _side_shade(canvas, face, shape)
    _cheeks(canvas, face)


def _side_shade(canvas: Canvas, face: Face, shape: Array) -> None:
    """Draws a crescent of shade on the side away from the light (the image's right)."""
    edge = shape[1:7]  # crown to chin on the right
    inner = edge[::-1] * (0.80, 1.0) - (0.025, 0.0)
    canvas.blob(
        np.concatenate((edge[:1], edge, edge[-1:], inner[1:-1])), face.colours.skin_shade, 0.65
    )


def _cheeks(canvas: Canvas, face: Face) -> None:
    traits, c = face.identity.traits, face.colours
    strength = 0.22 + 0.20 * traits.blush + (0.06 if face.identity.gender == "woman" else 0.0)
    for side in (-1, 1):
        x, y = face.at(side * 0.23, 0.19, 0.24)
        near = face.narrowing(side * 0.23)
        canvas.oval(x, y, 0.085 * near, 0.055, c.blush, max(0.0, strength))
        if traits.freckles > 0:
            for dx, dy in (
                (-0.05, -0.035),
                (0.0, -0.05),
                (0.05, -0.03),
                (-0.025, 0.0),
                (0.03, 0.008),
            ):
                canvas.oval(
                    x + dx * near, y + dy, 0.012, 0.012, c.skin_deep, 0.35 + 0.6 * traits.freckles
                )
