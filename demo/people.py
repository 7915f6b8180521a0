"""Draws a whole person in body coordinates (origin at the neck, unit one head)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import hair, hair_back, things
from .colours import Colours, colours
from .drawing import Array, Canvas, darker, mirrored
from .face import EXPRESSIONS, Face, draw_ears, draw_skin
from .features import draw_features
from .scene import Identity
from .skeleton import TRUNK, Skeleton, girth, shoulder_width

RIGHT, LEFT = 0, 1


# Weights (6, 3) of a limb's three joints: six points, slightly rounded at the middle joint.
_BEND = np.array(
    ((1, 0, 0), (0.5, 0.5, 0), (0.12, 0.88, 0), (0, 0.88, 0.12), (0, 0.5, 0.5), (0, 0, 1))
)
_ARM_WIDTHS = np.array((0.27, 0.26, 0.22, 0.215, 0.19, 0.16))
_LEG_WIDTHS = np.array((0.44, 0.40, 0.34, 0.32, 0.28, 0.22))


@dataclass(frozen=True)
class _Figure:
    """A person to draw, and the frame of their body."""

    canvas: Canvas
    identity: Identity
    bones: Skeleton
    colours: Colours


def draw_person(
    canvas: Canvas,
    identity: Identity,
    bones: Skeleton,
    expression: str,
    place: str,
    worn: tuple[str, ...] = (),
    flaw: str | None = None,
) -> None:
    """Draws a person; `canvas` is the frame of their body, `worn` what they wear on the head.

    `flaw` "extra limb" adds an arm, "missing limb" omits one.
    """
    figure = _Figure(canvas, identity, bones, colours(identity, place))
    head = canvas.frame(bones.head.x, bones.head.y, 1.0, bones.head.degrees)
    face = Face(identity, bones.head, figure.colours, EXPRESSIONS[expression])
    style = hair.worn(identity.hair_style, "hat" in worn)
    hair_back.draw_back(head, face, style)
    if canvas.shows(TRUNK - 0.6):
        _legs(figure)
    arms = (LEFT,) if flaw == "missing limb" else (RIGHT, LEFT)
    front = [side for side in arms if _in_front(bones, side)]
    for side in arms:
        if side not in front:
            _arm(figure, side)
    if flaw == "extra limb":
        _extra_arm(figure)
    _neck(figure)
    _trunk(figure)
    for side in front:
        _arm(figure, side)
    draw_ears(head, face)
    draw_skin(head, face)
    draw_features(head, face)
    hair.draw_front(head, face, style)
    hair_back.draw_locks(head, face, style)
    things.draw_worn(head, face, worn)


def _in_front(bones: Skeleton, side: int) -> bool:
    """Whether the arm is drawn over the trunk: if it hangs down or bends in front of it."""
    return bones.elbows[side][1] > bones.shoulders[side][1] + 0.25


def _trunk(figure: _Figure) -> None:
    """Draws the shirt from shoulders to hem, with its pattern and the shade on the right."""
    identity, bones, c = figure.identity, figure.bones, figure.colours
    trunk = figure.canvas.frame(0.0, 0.0, 1.0, bones.lean)
    thick = girth(identity)
    half = shoulder_width(identity) + 0.07 * thick
    waist = (
        half
        * (0.70 if identity.gender == "woman" else 0.82)
        * (1.06 if identity.build == "broad" else 1.0)
    )
    hip = max(0.36 * thick, waist * 0.96)
    right = [
        (0.0, -0.05), (0.15, -0.055), (half * 0.62, -0.005), (half * 0.93, 0.085), (half, 0.24),
        (half * 0.96, 0.42), (waist, 0.92), (hip, 1.44), (hip, 1.50), (0.0, 1.54),
    ]  # fmt: skip
    trunk.blob(mirrored(right), c.shirt)
    if identity.shirt_style == "striped":
        _stripes(trunk, half, waist, hip, c)
    edge = np.array(right[3:9])
    trunk.blob(np.concatenate((edge, edge[::-1] * (0.66, 1.0))), c.shirt_shade, 0.6)
    _collar(trunk, identity, c)


def _stripes(trunk: Canvas, half: float, waist: float, hip: float, c: Colours) -> None:
    for y in (0.22, 0.46, 0.70, 0.94, 1.18, 1.42):
        w = float(np.interp(y, (0.1, 0.36, 0.92, 1.44), (half, half * 0.97, waist, hip))) - 0.012
        trunk.stroke(
            ((-w + 0.05, y - 0.01), (0.0, y + 0.02), (w - 0.05, y - 0.01)), 0.095, c.white, 0.85
        )


def _collar(trunk: Canvas, identity: Identity, c: Colours) -> None:
    if identity.shirt_style == "collared":
        for side in (-1, 1):
            trunk.fill(
                ((0.0, 0.10), (side * 0.16, -0.10), (side * 0.25, 0.05), (side * 0.11, 0.21)),
                c.shirt_light,
            )
        trunk.stroke(((0.0, 0.12), (0.0, 1.45)), 0.022, c.shirt_shade)
        for y in (0.40, 0.72, 1.04):
            trunk.oval(0.0, y, 0.026, 0.026, c.white)
        return
    trunk.blob(
        ((-0.165, -0.07), (0.165, -0.07), (0.11, 0.055), (0.0, 0.085), (-0.11, 0.055)), c.skin_shade
    )


def _neck(figure: _Figure) -> None:
    wide = 0.14 * (0.5 + 0.5 * girth(figure.identity))
    if figure.identity.gender == "woman":
        wide -= 0.02
    head = figure.bones.head
    top = (head.x * 0.72, head.y * 0.72)
    figure.canvas.stroke((top, (0.0, 0.02)), (2 * wide, 2.2 * wide), figure.colours.skin_shade)


def _arm(figure: _Figure, side: int) -> None:
    """Draws one arm; the one on the image's right is in shade."""
    bones = figure.bones
    joints = np.array((bones.shoulders[side], bones.elbows[side], bones.wrists[side]))
    joints[0] += (0.045 if side == RIGHT else -0.045, 0.07)  # inside the shirt's shoulder
    _draw_arm(figure, joints, shade=side == LEFT)


def _extra_arm(figure: _Figure) -> None:
    """Draws a third arm."""
    shoulder = np.array(figure.bones.shoulders[LEFT]) * (0.9, 2.2)
    reach = np.array(((0.0, 0.0), (0.62, -0.28), (1.15, -0.62)))
    _draw_arm(figure, shoulder + reach, shade=True)


def _draw_arm(figure: _Figure, joints: Array, shade: bool) -> None:
    """Draws arm, hand and sleeve along `joints` (3, 2): shoulder, elbow, wrist."""
    canvas, c = figure.canvas, figure.colours
    thick = girth(figure.identity) * (0.86 if figure.identity.gender == "woman" else 1.0)
    path, widths = _BEND @ joints, _ARM_WIDTHS * thick
    skin = c.skin_shade if shade else c.skin
    canvas.stroke(path, widths * 0.84, skin)
    canvas.stroke((joints[2], joints[2] + 0.15 * (joints[2] - joints[1])), (0.16, 0.17), skin)
    sleeve = _sleeve(joints, path, _sleeve_share(figure.identity))
    cuff = widths[: len(sleeve)] * 1.12
    cuff[0] *= 0.92
    canvas.stroke(sleeve[1:], cuff[1:] + 0.035, darker(c.shirt, 0.45), 0.8)
    canvas.stroke(sleeve, cuff, darker(c.shirt, 0.28) if shade else c.shirt)


def _sleeve_share(identity: Identity) -> float:
    """Sleeve length as a fraction of the arm: short 0.30 to 0.38, long 0.75 to 0.95."""
    long = identity.traits.sleeves
    return 0.75 + 0.20 * long if long > 0 else 0.34 + 0.04 * long


def _sleeve(joints: Array, path: Array, share: float) -> Array:
    """The part of the arm's `path` that the sleeve covers."""
    shoulder, elbow, wrist = joints
    if share < 0.5:
        end = shoulder + (elbow - shoulder) * 2 * share
        return np.array((shoulder, 0.5 * (shoulder + end), end))
    end = elbow + (wrist - elbow) * (2 * share - 1)
    return np.array((*path[:4], 0.5 * (path[3] + end), end))


def _legs(figure: _Figure) -> None:
    """Draws trousers and shoes, the raised leg last."""
    canvas, bones, c = figure.canvas, figure.bones, figure.colours
    thick = girth(figure.identity) * (0.93 if figure.identity.gender == "woman" else 1.0)
    order = (LEFT, RIGHT) if bones.ankles[RIGHT][1] < bones.ankles[LEFT][1] else (RIGHT, LEFT)
    for side in order:
        joints = np.array((bones.hips[side], bones.knees[side], bones.ankles[side]))
        foot = joints[2] + 0.08 * (joints[2] - joints[1])
        toes = foot + np.array((0.15 if side == LEFT else -0.15, 0.05))
        canvas.stroke((foot, toes), (0.17, 0.13), c.shoe)
        path, widths = _BEND @ joints, _LEG_WIDTHS * thick
        canvas.stroke(path, widths + 0.03, darker(c.trousers, 0.4))
        canvas.stroke(path, widths, darker(c.trousers, 0.22) if side == LEFT else c.trousers)
    (ax, ay), (bx, by) = bones.hips
    canvas.stroke(((ax, ay - 0.02), (bx, by - 0.02)), 0.40 * thick, c.trousers)
