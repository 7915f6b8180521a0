"""Draws eyes, brows, nose, mouth and beard, in the head's frame."""

from __future__ import annotations

import numpy as np

from .colours import TEETH
from .drawing import Array, Canvas, darker, mirrored, mix, moved
from .face import Face, outline
from .skeleton import eye_at, nose_at


def draw_features(canvas: Canvas, face: Face) -> None:
    """Draws beard, mouth, nose, eyes, brows, wrinkles and mole on the skin."""
    _beard(canvas, face)
    _mouth(canvas, face)
    _moustache(canvas, face)
    _nose(canvas, face)
    for side in (-1, 1):
        _eye(canvas, face, side)
        _brow(canvas, face, side)
    if face.identity.wrinkles:
        _wrinkles(canvas, face)
    _mole(canvas, face)


def _eye(canvas: Canvas, face: Face, side: int) -> None:
    traits, c, look = face.identity.traits, face.colours, face.expression
    ex, ey, ez = eye_at(traits)
    x, y = face.at(side * ex, ey, ez)
    size = 1 + 0.24 * traits.eye_size
    wide, high = 0.088 * size * face.narrowing(side * ex), 0.058 * size * look.lids
    eye = canvas.frame(x, y, 1.0, -side * (4 + 9 * traits.eye_tilt))
    if look.lids == 0.0:
        shut = ((-1, 0.02), (-0.5, -0.02), (0, -0.033), (0.5, -0.02), (1, 0.02))
        eye.stroke(np.array(shut) * (wide, 1), 0.028, c.ink)
        return
    upper = np.array(((-1, 0.2), (-0.55, -0.8), (0, -1), (0.55, -0.8), (1, 0.1))) * (wide, high)
    lower = np.array(((0.55, 0.75), (0, 0.92), (-0.55, 0.75))) * (wide, high)
    eye.blob(np.concatenate((upper, lower)), c.white)
    iris, glance = 0.052 * size, 0.018 * face.head.yaw
    eye.oval(glance, 0.0, min(iris, 0.8 * wide), min(iris, 0.96 * high), c.iris)
    eye.oval(glance, 0.0, 0.025 * size, 0.025 * size, c.ink)
    eye.oval(glance - 0.018, -0.020, 0.014, 0.014, c.white)
    woman = face.identity.gender == "woman"
    lash = 0.030 if woman else 0.021
    eye.stroke(upper, (lash * 0.6, lash, lash, lash, lash * 0.6), c.ink)
    if woman:
        tip = side * wide
        eye.stroke(((tip * 0.85, -0.02), (tip * 1.25, -0.045)), (lash * 0.8, 0.008), c.ink)


def _brow(canvas: Canvas, face: Face, side: int) -> None:
    traits, c, look = face.identity.traits, face.colours, face.expression
    ex, ey, _ = eye_at(traits)
    lift = 0.125 + 0.028 * traits.brow_height + 0.035 * look.raised
    x, y = face.at(side * (ex + 0.008), ey - lift, 0.31)
    thick = 0.034 * (1 + 0.5 * traits.brow_thickness)
    if face.identity.gender == "woman":
        thick *= 0.72
    wide = side * 0.10 * face.narrowing(side * ex)
    slope = side * (2 + 8 * traits.brow_tilt - 13 * look.frown)
    arch = ((-wide, 0.016), (0.0, -0.012), (wide, 0.014))
    canvas.frame(x, y, 1.0, slope).stroke(arch, (thick, thick, thick * 0.45), c.brow)


def _nose(canvas: Canvas, face: Face) -> None:
    """Draws a flat wedge of shade: the side of the ridge and the underside."""
    traits, c = face.identity.traits, face.colours
    x, y = face.at(*nose_at(traits))
    ridge_x, ridge_y = face.at(0.02, 0.02, 0.34)
    w = 0.058 * (1 + 0.38 * traits.nose_width)
    right, left = (x + w, y + 0.012), (x - w, y + 0.012)
    wedge = (
        (ridge_x, ridge_y), (x + 0.5 * w, y - 0.05), right, right, (x, y + 0.03), left, left,
        (x - 0.45 * w, y - 0.008), (x + 0.012, y - 0.03),
    )  # fmt: skip
    canvas.blob(wedge, c.skin_deep, 0.55)
    canvas.oval(x - 0.3 * w, y - 0.022, 0.4 * w, 0.022, c.white, 0.30)


def _mouth_at(face: Face) -> tuple[float, float]:
    """Position of the middle of the mouth."""
    traits = face.identity.traits
    return face.at(0.0, 0.305 + 0.022 * traits.mouth_height + 0.012 * traits.nose_length, 0.33)


def _mouth(canvas: Canvas, face: Face) -> None:
    traits, look = face.identity.traits, face.expression
    wide = 0.095 * (1 + 0.26 * traits.mouth_width) * look.width * face.narrowing(0.0)
    mouth = canvas.frame(*_mouth_at(face))
    if look.opening == 0.0:
        _closed_mouth(mouth, face, wide)
    elif look.curve == 0.0:
        c, drop = face.colours, 0.064 * look.opening
        mouth.oval(0.0, 0.02, wide + 0.014, drop + 0.014, c.lip)
        mouth.oval(0.0, 0.02, wide, drop, mix(c.ink, c.lip, 0.3))
    else:
        _open_smile(mouth, face, wide)


def _closed_mouth(mouth: Canvas, face: Face, wide: float) -> None:
    """Draws the line between the lips, curved by the expression, over a lower lip."""
    traits, c = face.identity.traits, face.colours
    woman = face.identity.gender == "woman"
    rise = 0.045 * face.expression.curve
    curve = np.array(((-1, -1), (-0.5, 0.45), (0, 1), (0.5, 0.45), (1, -1))) * (wide, rise)
    full = (0.034 + 0.018 * traits.lips) * (1.35 if woman else 0.8)
    line = 0.026 + 0.010 * traits.lips
    below = moved(curve, 0.0, full * 0.35)
    mouth.stroke(below, (0.012, full, full * 1.15, full, 0.012), c.lip)
    mouth.stroke(curve, (0.012, line, line, line, 0.012), mix(c.lip, c.ink, 0.5 if woman else 0.6))


def _open_smile(mouth: Canvas, face: Face, wide: float) -> None:
    c, opening = face.colours, face.expression.opening
    rise, drop = 0.045 * face.expression.curve, 0.085 * opening
    corner = (wide, -rise)
    shape = mirrored(
        ((0.0, rise * 0.1), corner, corner, (0.62 * wide, drop * 0.8), (0.0, rise + drop))
    )
    mouth.blob(shape * (1.12, 1.22), c.lip)
    mouth.blob(shape, mix(c.ink, c.lip, 0.28))
    corner = (0.86 * wide, -rise * 0.75)
    teeth = ((0.0, rise * 0.22), corner, corner, (0.5 * wide, drop * 0.34), (0.0, drop * 0.52))
    mouth.blob(mirrored(teeth), TEETH)
    if opening > 0.8:
        mouth.oval(0.0, rise + drop * 0.72, 0.45 * wide, drop * 0.20, c.lip)


def _beard(canvas: Canvas, face: Face) -> None:
    """Draws stubble, goatee or full beard over the jaw, beneath the mouth."""
    kind, c = face.identity.beard, face.colours
    x, y = _mouth_at(face)
    if kind == "goatee":
        chin = face.chin_y()
        half = ((0, y - 0.075), (0.115, y - 0.045), (0.125, y + 0.06), (0.075, chin + 0.03))
        canvas.blob(moved(mirrored((*half, (0, chin + 0.055))), x, 0.0), c.hair)
    elif kind == "stubble":
        canvas.blob(_jaw(face, 0.0), mix(c.skin_deep, c.brow, 0.55), 0.42)
    elif kind == "full":
        shape = _jaw(face, 0.045)
        canvas.blob(shape, c.hair)
        right = shape[1:6]
        canvas.blob(np.concatenate((right, right[::-1] * (0.80, 0.93))), c.hair_shade, 0.6)


def _jaw(face: Face, grow: float) -> Array:
    """Outline of the jaw from temple to temple and back above the mouth, (17, 2)."""
    x, y = _mouth_at(face)
    jaw = outline(face, grow)[2:11]
    jaw[(0, -1), 1] = -0.02
    half = ((0.06, y - 0.07), (0.19, y - 0.035), (0.24, 0.13))
    inside = [(x - u, v) for u, v in half[::-1]] + [(x + u, v) for u, v in half]
    return np.concatenate((jaw[:1], jaw, jaw[-1:], inside))


def _moustache(canvas: Canvas, face: Face) -> None:
    kind, c = face.identity.beard, face.colours
    if kind not in ("moustache", "full", "goatee"):
        return
    alone = kind == "moustache"
    size = 1.0 if alone else 0.85
    x, y = _mouth_at(face)
    y -= 0.064 + 0.012 * face.expression.opening
    for side in (-size, size):
        wing = ((x, y - 0.012), (x + side * 0.06, y - 0.016), (x + side * 0.145, y + 0.038))
        canvas.stroke(wing, (0.045 * size, 0.056 * size, 0.012), c.hair if alone else c.hair_shade)


def _wrinkles(canvas: Canvas, face: Face) -> None:
    """Draws lines on the forehead, from nose to mouth, and beside the eyes."""
    deep = face.colours.skin_deep
    for y in (-0.245, -0.195):
        brow = [face.at(x, y - lift, 0.30) for x, lift in ((-0.12, 0), (0, 0.012), (0.12, 0))]
        canvas.stroke(brow, 0.015, deep, 0.7)
    for side in (-1, 1):
        fold = [
            face.at(side * x, y, 0.29) for x, y in ((0.135, 0.20), (0.167, 0.25), (0.175, 0.30))
        ]
        canvas.stroke(fold, 0.016, deep, 0.75)
        x, y = face.at(side * 0.275, 0.02, 0.2)
        for dy in (-0.03, 0.02):
            canvas.stroke(((x, y + 0.4 * dy), (x + side * 0.045, y + dy)), 0.013, deep, 0.75)


def _mole(canvas: Canvas, face: Face) -> None:
    where = face.identity.traits.mole
    if abs(where) < 0.4:
        return
    side = 1 if where > 0 else -1
    x, y = face.at(side * 0.19, 0.33 - 0.25 * (abs(where) - 0.4), 0.26)
    canvas.oval(x, y, 0.018, 0.018, darker(face.colours.skin_deep, 0.6))
