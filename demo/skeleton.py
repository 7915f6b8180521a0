"""The skeleton from which both the drawing and the 18 OpenPose keypoints are derived.

Body coordinates: origin at the neck (between the shoulders), unit one head (chin to crown),
x to the image's right, y down; the person faces the viewer, so their right side is at x < 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np
from numpy.typing import NDArray

from .scene import Identity, Pose, Scene, Traits

Point = tuple[float, float]

UPPER_ARM, FOREARM, THIGH, SHIN = 0.74, 0.66, 0.98, 0.94
TRUNK = 1.42
YAW, PITCH = radians(25), radians(13)
# Angles of an arm that carries an umbrella.
CARRYING = (24.0, 158.0)


@dataclass(frozen=True)
class Head:
    """The head's centre in body coordinates, and its rotation in degrees clockwise."""

    x: float
    y: float
    degrees: float
    yaw: float
    pitch: float

    def face(self, x: float, y: float, z: float) -> Point:
        """Projects a point in the head's frame (unit one head, z towards the viewer)."""
        across, up = self.yaw * YAW, self.pitch * PITCH
        depth = z * cos(across) - x * sin(across)
        return x * cos(across) + z * sin(across), y * cos(up) + depth * sin(up)

    def on_body(self, point: Point) -> Point:
        """Converts a point from the head's frame to body coordinates."""
        turn = radians(self.degrees)
        x, y = point
        return self.x + x * cos(turn) - y * sin(turn), self.y + x * sin(turn) + y * cos(turn)


@dataclass(frozen=True)
class Skeleton:
    """The joints of one person in body coordinates; arms and legs as (right, left)."""

    head: Head
    lean: float
    shoulders: tuple[Point, Point]
    elbows: tuple[Point, Point]
    wrists: tuple[Point, Point]
    hips: tuple[Point, Point]
    knees: tuple[Point, Point]
    ankles: tuple[Point, Point]

    def all_points(self) -> NDArray[np.float64]:
        """The 13 joints of body and head centre, (13, 2)."""
        pairs = (self.shoulders, self.elbows, self.wrists, self.hips, self.knees, self.ankles)
        return np.array([(self.head.x, self.head.y), *(point for pair in pairs for point in pair)])


def shoulder_width(identity: Identity) -> float:
    """Half the distance between the shoulder joints, in heads."""
    base = {"slim": 0.50, "average": 0.57, "broad": 0.66}[identity.build]
    return base - (0.07 if identity.gender == "woman" else 0.0)


def girth(identity: Identity) -> float:
    """Thickness of trunk and limbs, 1 for average."""
    return {"slim": 0.84, "average": 1.0, "broad": 1.24}[identity.build]


def skeleton(identity: Identity, pose: Pose, carrying: str | None = None) -> Skeleton:
    """The joints of a person; `carrying` "right" or "left" bends that arm to hold an umbrella."""
    turn = radians(pose.lean)
    half = shoulder_width(identity)
    hip_x = 0.24 if identity.build != "broad" else 0.27

    def trunk(x: float, y: float) -> Point:
        return x * cos(turn) - y * sin(turn), x * sin(turn) + y * cos(turn)

    shoulders = trunk(-half, 0.10), trunk(half, 0.10)
    middle = -TRUNK * sin(turn), TRUNK * cos(turn)
    hips = (middle[0] - hip_x, middle[1]), (middle[0] + hip_x, middle[1])
    right, left = pose.arms[:2], pose.arms[2:]
    right = CARRYING if carrying == "right" else right
    left = CARRYING if carrying == "left" else left
    elbows = _swing(shoulders, UPPER_ARM, right[0] + pose.lean, left[0] - pose.lean)
    wrists = _swing(elbows, FOREARM, right[1] + pose.lean, left[1] - pose.lean)
    knees = _swing(hips, THIGH, pose.legs[0], pose.legs[2])
    ankles = _swing(knees, SHIN, pose.legs[1], pose.legs[3])
    return Skeleton(
        _head(identity.traits, pose), pose.lean, shoulders, elbows, wrists, hips, knees, ankles
    )


def _head(traits: Traits, pose: Pose) -> Head:
    neck = radians(pose.lean * 0.8 + pose.tilt * 0.4)
    reach = 0.20 + 0.04 * traits.neck + 0.5 * (1 + 0.09 * traits.face_height)
    degrees = pose.lean * 0.8 + pose.tilt
    return Head(reach * sin(neck), -reach * cos(neck), degrees, pose.yaw, pose.pitch)


def _swing(
    starts: tuple[Point, Point], length: float, right: float, left: float
) -> tuple[Point, Point]:
    """The far ends of a pair of limbs, by their outward angles in degrees."""
    (rx, ry), (lx, ly) = starts
    r, o = radians(right), radians(left)
    return (rx - length * sin(r), ry + length * cos(r)), (
        lx + length * sin(o),
        ly + length * cos(o),
    )


def eye_at(traits: Traits) -> tuple[float, float, float]:
    """The left eye's centre in the head's frame; the right eye mirrors it."""
    return 0.165 * (1 + 0.2 * traits.eye_spacing), 0.02, 0.30


def nose_at(traits: Traits) -> tuple[float, float, float]:
    """The tip of the nose in the head's frame."""
    return 0.0, 0.165 + 0.05 * traits.nose_length, 0.42


def ear_at(traits: Traits) -> tuple[float, float, float]:
    """The left ear's centre in the head's frame."""
    return 0.385 * (1 + 0.13 * traits.face_width), 0.07, 0.0


@dataclass(frozen=True)
class Camera:
    """A person's neck position on the canvas, and the length of a head, in canvas heights."""

    x: float
    y: float
    head: float

    def on_canvas(self, point: Point) -> Point:
        return self.x + point[0] * self.head, self.y + point[1] * self.head


# Length of a head and height of the head's centre on the canvas, by framing.
_FRAMES = {"close-up": (0.60, 0.52), "portrait": (0.39, 0.43), "half": (0.25, 0.27)}


def companion_side(scene: Scene) -> int:
    """1 if the second person is on the image's right, else -1."""
    return 1 if scene.variation % 2 else -1


def umbrella_hand(scene: Scene) -> str | None:
    """The hand that holds the umbrella, away from the second person; None without one."""
    if "umbrella" not in scene.things:
        return None
    return "right" if companion_side(scene) > 0 else "left"


def body(scene: Scene) -> Skeleton:
    """The skeleton of the scene's person."""
    return skeleton(scene.identity, scene.pose, umbrella_hand(scene))


def camera(scene: Scene, aspect: float) -> Camera:
    """How the scene's person is placed on a canvas of `aspect` (width / height)."""
    bones = body(scene)
    jitter = np.random.default_rng(scene.variation).uniform(-1, 1, 3)
    if scene.framing == "full":
        return _whole_figure(scene, bones, aspect, jitter)
    size, y = _FRAMES[scene.framing]
    size *= (1 + 0.06 * jitter[0]) * min(1.0, 0.25 + aspect * 0.85)
    if "umbrella" in scene.things:
        size, y = size * (0.76 if scene.framing != "half" else 0.88), y + 0.13
    if "hat" in scene.things:
        size, y = size * 0.93, y + 0.03
    x = 0.5 * aspect + 0.03 * jitter[1]
    if scene.companion is not None:
        size *= 0.86
        x -= companion_side(scene) * min(0.54 * size, 0.20 * aspect)
    y += 0.015 * jitter[2]
    return Camera(x - bones.head.x * size, y - bones.head.y * size, size)


def _whole_figure(
    scene: Scene, bones: Skeleton, aspect: float, jitter: NDArray[np.float64]
) -> Camera:
    points = bones.all_points()
    top = -bones.head.y + (1.45 if "umbrella" in scene.things else 0.72)
    margin = np.array((0.30, 0.22))
    low = np.minimum(points.min(axis=0) - margin, (-0.8, -top))
    high = np.maximum(points.max(axis=0) + margin, (0.8, 0.0))
    if scene.companion is not None:
        side = companion_side(scene)
        low[0], high[0] = (low[0], high[0] + 1.2) if side > 0 else (low[0] - 1.2, high[0])
    span = high - low
    size = min(0.90 / span[1], 0.94 * aspect / span[0], 0.182) * (1 - 0.04 * abs(jitter[0]))
    slack = max(0.0, aspect - span[0] * size)
    x = 0.5 * slack * (1 + 0.35 * jitter[1]) - low[0] * size
    return Camera(x, 0.955 - high[1] * size, size)


def keypoints(scene: Scene, width: int = 128, height: int = 128) -> NDArray[np.float64]:
    """The person's 18 OpenPose keypoints on a canvas of that shape.

    Returns (18, 3), in the order of `comparison.poses.JOINTS`: x and y from 0 to 1 of width and
    height, and 1 if visible. Joints outside the canvas and the ear on the far side of a turned head
    are (0, 0, 0).
    """
    aspect = width / height
    view, bones = camera(scene, aspect), body(scene)
    head, traits = bones.head, scene.identity.traits
    eye, nose, ear = eye_at(traits), nose_at(traits), ear_at(traits)
    (rs, ls), (re, le), (rw, lw) = bones.shoulders, bones.elbows, bones.wrists
    (rh, lh), (rk, lk), (ra, la) = bones.hips, bones.knees, bones.ankles
    features = [head.on_body(head.face(*nose))]
    features += [head.on_body(head.face(side * eye[0], *eye[1:])) for side in (-1, 1)]
    features += [head.on_body(head.face(side * ear[0], *ear[1:])) for side in (-1, 1)]
    tip, eyes, ears = features[0], features[1:3], features[3:]
    points = [tip, (0.0, 0.0), rs, re, rw, ls, le, lw, rh, rk, ra, lh, lk, la, *eyes, *ears]
    placed = np.array([view.on_canvas(point) for point in points]) / (aspect, 1.0)  # (18, 2)
    visible = np.asarray(((placed >= 0) & (placed <= 1)).all(axis=1))
    visible[16] &= scene.pose.yaw > -0.55
    visible[17] &= scene.pose.yaw < 0.55
    seen: NDArray[np.float64] = np.where(visible[:, None], np.column_stack((placed, visible)), 0.0)
    return seen
