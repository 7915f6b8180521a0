"""Body poses as OpenPose keypoints: choosing one by seed, fitting it to a canvas, drawing it."""

from __future__ import annotations

import colorsys
from math import atan2, cos, degrees, dist, pi, radians, sin
from random import Random
from typing import Annotated

from PIL import Image, ImageDraw
from pydantic import Field

from ..trainers.recipe import Name, Part
from .errors import ComparisonError

# In the order of OpenPose's COCO model.
JOINTS = (
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow",
    "left wrist", "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)  # fmt: skip

# Limbs in drawing order, as pairs of joint indices.
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12),
    (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip

# The palette of OpenPose and of the ControlNets trained on it: 18 hues, 20 degrees apart.
COLOURS = tuple(
    tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue / 18, 1, 1)) for hue in range(18)
)
MAX_SIDE = 8192

Coordinate = Annotated[float, Field(ge=-16, le=16)]
Point = tuple[Coordinate, Coordinate]
Person = Annotated[tuple[Point | None, ...], Field(min_length=18, max_length=18)]


class Pose(Part):
    """The joints of one or more people on a canvas of `aspect` (width / height).

    A person is 18 points in the order of JOINTS, with x and y from 0 to 1 in units of the canvas'
    width and height; other values are off the canvas. None is a joint that is not visible.
    """

    name: Name
    aspect: float = Field(ge=1 / 64, le=64)
    people: tuple[Person, ...] = Field(min_length=1, max_length=256)


def choose_pose(poses: tuple[Pose, ...], seed: int, key: str) -> Pose:
    """One of the poses, uniformly at random but determined by the seed and the prompt key.

    Raises ComparisonError if there is none.
    """
    if not poses:
        raise ComparisonError("There is no pose to choose from: connect or name at least one.")
    # Python guarantees that random() is stable across versions, unlike choice().
    return poses[int(Random(f"pose:{seed}:{key}").random() * len(poses))]


def fit_pose(pose: Pose, width: int, height: int, margin: float = 0.03) -> Pose:
    """The pose on a canvas of `width` by `height`, with its proportions and no limb off the canvas.

    The pose's own canvas is scaled to cover the new one, centred. If people would be cut off, they
    are shrunk or moved to fit, with a margin (a fraction of the shorter side) around heads, hands
    and feet. A pose that fits on a canvas of the same aspect is unchanged.
    """
    check_canvas(width, height)
    aspect = width / height
    sides = aspect, 1.0  # from here on, all lengths are in canvas heights
    edge = margin * min(sides)
    low, high = _bounding_box(pose)
    extents = zip(sides, low, high, strict=True)
    scale = min(
        max(aspect / pose.aspect, 1.0),
        *((side - 2 * edge) / max(last - first, 1e-6) for side, first, last in extents),
    )
    middles = 0.5 * pose.aspect, 0.5
    shift = [
        min(max(side / 2 - scale * middle, edge - scale * first), side - edge - scale * last)
        for side, middle, first, last in zip(sides, middles, low, high, strict=True)
    ]

    def place(point: Point) -> Point:
        x = (point[0] * pose.aspect * scale + shift[0]) / aspect
        return x, point[1] * scale + shift[1]

    people = tuple(tuple(point and place(point) for point in person) for person in pose.people)
    return Pose(name=pose.name, aspect=aspect, people=people)


def check_canvas(width: float, height: float) -> None:
    """Raises ComparisonError if a canvas cannot have these sides, in pixels."""
    short, long = sorted((width, height))
    if not (short >= 1 and long <= min(MAX_SIDE, 64 * short)):
        raise ComparisonError(
            f"A canvas of {width} x {height} is not possible: each side must be 1 to {MAX_SIDE} "
            "pixels, and at most 64 times the other."
        )


# How far the body extends beyond a joint, as a fraction of the limb that leads to it: the crown
# beyond neck and nose, hands (0.108 of stature, the forearm 0.146: D. Winter, Biomechanics and
# Motor Control of Human Movement) and feet.
_BEYOND = ((1, 0, 0.9), (3, 4, 0.7), (6, 7, 0.7), (9, 10, 0.3), (12, 13, 0.3))


def _bounding_box(pose: Pose) -> tuple[Point, Point]:
    """Corners of the bounding box with heads, hands and feet, in heights of the pose's canvas."""
    points = []
    for person in pose.people:
        seen = [point and (point[0] * pose.aspect, point[1]) for point in person]
        points += [point for point in seen if point]
        for inner, outer, share in _BEYOND:
            if (a := seen[inner]) and (b := seen[outer]):
                points.append((b[0] + share * (b[0] - a[0]), b[1] + share * (b[1] - a[1])))
    across, down = zip(*points, strict=True)
    return (min(across), min(down)), (max(across), max(down))


def draw_pose(pose: Pose, width: int, height: int, stick_width: int | None = None) -> Image.Image:
    """The pose on black in OpenPose's colours, RGB, as OpenPose ControlNets were trained on.

    Args:
        stick_width: half the thickness of a limb and the radius of a joint, in pixels. The default
            is 4, as in the ControlNets' training at 512 pixels, and proportionally less if the
            shorter side is below 512.
    """
    check_canvas(width, height)
    stick_width = stick_width or max(1, round(4 * min(1.0, min(width, height) / 512)))
    image = Image.new("RGB", (width, height))
    canvas = ImageDraw.Draw(image)
    for person in pose.people:
        joints = [point and (point[0] * width, point[1] * height) for point in person]
        for (start, end), colour in zip(LIMBS, COLOURS, strict=False):
            if (a := joints[start]) and (b := joints[end]):
                shade = tuple(int(0.6 * part) for part in colour)
                canvas.polygon(_limb(a, b, stick_width), fill=shade)
        for joint, colour in zip(joints, COLOURS, strict=True):
            if joint:
                canvas.point(_disc(joint, stick_width), fill=colour)
    return image


def _limb(a: Point, b: Point, stick_width: int) -> list[tuple[int, int]]:
    """The ellipse of a limb, in whole pixels and degrees as in the training images."""
    x, y = int((a[0] + b[0]) / 2), int((a[1] + b[1]) / 2)
    half = int(dist(a, b) / 2)
    turn = radians(int(degrees(atan2(a[1] - b[1], a[0] - b[0]))))
    corners = []
    for step in range(360):
        along, across = half * cos(step * pi / 180), stick_width * sin(step * pi / 180)
        corners.append(
            (
                round(x + along * cos(turn) - across * sin(turn)),
                round(y + along * sin(turn) + across * cos(turn)),
            )
        )
    return corners


def _disc(centre: Point, radius: int) -> list[tuple[int, int]]:
    """The pixels of a filled circle."""
    x, y = int(centre[0]), int(centre[1])
    around = range(-radius, radius + 1)
    return [(x + i, y + j) for i in around for j in around if i * i + j * j <= radius * radius]
