"""Reads and writes `POSE_KEYPOINT`, the type of ComfyUI's core and other packs; the yoga poses.

A frame is ``{"canvas_width": int, "canvas_height": int, "people": [{"pose_keypoints_2d":
[x, y, score, ...]}]}``; a value is one frame or a list. Some packs give x and y in pixels, others
from 0 to 1 of the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..trainers.recipe import format_validation_error
from .errors import ComparisonError
from .poses import JOINTS, Person, Pose, check_canvas
from .user_files import read_json

MAX_FRAMES = 1000
# Joints with a lower score count as not visible, as in core's node that draws keypoints.
_MIN_SCORE = 0.3
# Coordinates up to here are relative to the canvas: no body is only two pixels large.
_MAX_RELATIVE = 2.0


def yoga_poses() -> tuple[Pose, ...]:
    """The four yoga poses tree, warrior-two, goddess and lotus, all with the face visible."""
    return read_poses(Path(__file__).parent / "pose_sets" / "yoga.json")


def read_poses(path: Path) -> tuple[Pose, ...]:
    """The poses in a JSON file: a frame, a list of frames, or ``{"poses": {name: frame, ...}}``.

    Raises ComparisonError that names the file.
    """
    data = read_json(path)
    named = data.get("poses") if isinstance(data, dict) else None
    try:
        if not isinstance(named, dict):
            return poses_of_keypoints(data)
        _check_count(len(named))
        return tuple(_pose_of_frame(frame, name) for name, frame in named.items())
    except ComparisonError as error:
        raise ComparisonError(f"{path}: {error}") from None


def poses_of_keypoints(data: Any, name: str = "pose") -> tuple[Pose, ...]:
    """The pose of each frame, called `name`, or ``name-1`` and so on if there are several.

    Hands and faces are ignored. Joints may be missing. Raises ComparisonError for data of another
    kind, a frame without people, a person without exactly 18 points, or non-finite numbers.
    """
    frames = [data] if isinstance(data, dict) else data
    _check_count(len(frames) if isinstance(frames, list | tuple) else 0)
    if len(frames) == 1:
        return (_pose_of_frame(frames[0], name),)
    return tuple(
        _pose_of_frame(frame, f"{name}-{number}") for number, frame in enumerate(frames, start=1)
    )


def _check_count(frames: int) -> None:
    if not frames:
        raise ComparisonError("These are not pose keypoints: give a frame or a list of frames.")
    if frames > MAX_FRAMES:
        raise ComparisonError(f"{frames:,} frames are too many: give at most {MAX_FRAMES:,}.")


def keypoints_of_poses(poses: Sequence[Pose], width: int, height: int) -> list[dict[str, Any]]:
    """A frame per pose, in pixels of a canvas of `width` by `height`; no faces, no hands."""
    check_canvas(width, height)
    return [
        {
            "canvas_width": width,
            "canvas_height": height,
            "people": [
                {
                    "pose_keypoints_2d": _flatten_keypoints(person, width, height),
                    # Readers expect these lists; a score of 0 marks a point as not visible.
                    "face_keypoints_2d": [0.0] * 3 * 70,
                    "hand_left_keypoints_2d": [0.0] * 3 * 21,
                    "hand_right_keypoints_2d": [0.0] * 3 * 21,
                }
                for person in pose.people
            ],
        }
        for pose in poses
    ]


def _flatten_keypoints(person: Person, width: int, height: int) -> list[float]:
    flat = []
    for point in person:
        flat += [point[0] * width, point[1] * height, 1.0] if point else [0.0, 0.0, 0.0]
    return flat


def _pose_of_frame(frame: Any, name: str) -> Pose:
    if not isinstance(frame, dict) or not isinstance(frame.get("people"), list | tuple):
        raise ComparisonError(f"The pose {name!r} is not a keypoint frame: it has no 'people'.")
    width, height = _canvas(frame, name)
    people = [_joints(person, name) for person in frame["people"]]
    people = [joints for joints in people if any(joints)]
    if not people:
        raise ComparisonError(
            f"There is no person in the pose {name!r}: choose an image in which one is detected."
        )
    if any(max(map(abs, point)) > _MAX_RELATIVE for joints in people for point in joints if point):
        people = [[p and (p[0] / width, p[1] / height) for p in joints] for joints in people]
    try:
        return Pose(name=name, aspect=width / height, people=tuple(map(tuple, people)))
    except ValidationError as error:
        raise ComparisonError(format_validation_error(error, f"pose {name!r}")) from None


def _canvas(frame: dict[str, Any], name: str) -> tuple[float, float]:
    try:
        width, height = _numbers([frame["canvas_width"], frame["canvas_height"]])
    except (KeyError, ValueError):
        raise ComparisonError(
            f"The pose {name!r} needs canvas_width and canvas_height, in pixels."
        ) from None
    check_canvas(width, height)
    return width, height


def _joints(person: Any, name: str) -> list[tuple[float, float] | None]:
    """The 18 joints of one person in the given units, None for joints that are not visible."""
    flat = person.get("pose_keypoints_2d") if isinstance(person, dict) else None
    flat = [0.0] * 3 * len(JOINTS) if flat is None else flat  # only hands or face detected
    try:
        values = _numbers(flat)
    except ValueError as error:
        raise ComparisonError(f"The pose {name!r} cannot be read: {error}.") from None
    if len(values) != 3 * len(JOINTS):
        raise ComparisonError(
            f"A person in the pose {name!r} has {len(values) / 3:g} points instead of "
            f"{len(JOINTS)}: give those of OpenPose's COCO model, each with x, y and score."
        )
    triples = zip(values[::3], values[1::3], values[2::3], strict=True)
    return [(x, y) if score >= _MIN_SCORE else None for x, y, score in triples]


def _numbers(values: Any) -> list[float]:
    """`values` as finite floats. Raises ValueError that says what is wrong."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise ValueError("its keypoints are not a list of numbers") from None
    for index, number in enumerate(numbers):
        if not isfinite(number):
            joint = JOINTS[index // 3 % len(JOINTS)]
            raise ValueError(f"the joint '{joint}' has the value {number}; use 0 if it is missing")
    return numbers
