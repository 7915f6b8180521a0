"""Likeness_PoseSet: the poses of a comparison, and their images for an OpenPose ControlNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..comparison.errors import ComparisonError
from ..comparison.keypoints import poses_of_keypoints, yoga_poses
from ..comparison.poses import COLOURS, LIMBS, Pose, draw_pose, fit_pose
from .host import io
from .sockets import KeypointsType, PosesType
from .widgets import size_widget, with_search_aliases

ALL_POSES = "all four yoga poses"


class PoseSet(io.ComfyNode):
    """Poses as OpenPose-18 keypoints: the yoga poses, or connected keypoints."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="Likeness_PoseSet",
            display_name="Pose Set (Likeness)",
            category="Likeness",
            description=(
                "Poses for an OpenPose ControlNet. A comparison picks one for each prompt, by its "
                "seed, and fits it to the canvas so that no limb is cut off."
            ),
            inputs=[
                io.String.Input(
                    "poses",
                    default=ALL_POSES,
                    extra_dict={"likeness_poses": picker_data()},
                    tooltip="Names separated by commas: "
                    f"{', '.join(pose.name for pose in yoga_poses())}. Ignored if keypoints is "
                    "connected.",
                ),
                size_widget("width", 768, "Width of the preview."),
                size_widget("height", 1024, "Height of the preview."),
                KeypointsType.Input(
                    "keypoints",
                    optional=True,
                    tooltip="Replaces poses: POSE_KEYPOINT from Detect Pose or another pack.",
                ),
            ],
            outputs=[
                PosesType.Output(id="pose_set", display_name="poses"),
                io.Image.Output(
                    id="preview",
                    display_name="preview",
                    tooltip="Each pose as the ControlNet sees it.",
                ),
            ],
        )
        return with_search_aliases(schema, "openpose", "poses", "skeleton")

    @classmethod
    def validate_inputs(cls, poses: str | None = None) -> bool:
        """Checks the names before the queue starts. Raises ComparisonError."""
        select_poses(poses) if poses is not None else None
        return True

    @classmethod
    def execute(cls, poses: str, width: int, height: int, keypoints: Any = None) -> io.NodeOutput:
        """(poses, IMAGE). Raises ComparisonError for keypoints that are not a pose."""
        chosen = select_poses(poses) if keypoints is None else poses_of_keypoints(keypoints)
        return io.NodeOutput(chosen, pose_images(chosen, width, height))


def select_poses(text: str) -> tuple[Pose, ...]:
    """The poses that `text` names, in the set's order. Raises ComparisonError."""
    known = yoga_poses()
    if text.strip() == ALL_POSES:
        return known
    names = {name.strip() for name in text.split(",")} - {""}
    unknown = sorted(names - {pose.name for pose in known})
    if unknown or not names:
        wrong = f"There is no pose {unknown[0]!r}" if unknown else "No pose is chosen"
        listed = ", ".join(pose.name for pose in known)
        raise ComparisonError(f"{wrong}: enter {listed}, separated by commas, or {ALL_POSES!r}.")
    return tuple(pose for pose in known if pose.name in names)


def picker_data() -> dict[str, Any]:
    """What the pose picker in the browser draws, and the value that selects all poses."""
    poses = [pose.model_dump(mode="json") for pose in yoga_poses()]
    return {"all": ALL_POSES, "poses": poses, "limbs": LIMBS, "colours": COLOURS}


def pose_images(poses: Sequence[Pose], width: int, height: int) -> torch.Tensor:
    """IMAGE (N, height, width, 3) in [0, 1]: each pose fitted to the canvas and drawn."""
    drawn = (draw_pose(fit_pose(pose, width, height), width, height) for pose in poses)
    return torch.stack([torch.from_numpy(np.array(image)) for image in drawn]).float() / 255
