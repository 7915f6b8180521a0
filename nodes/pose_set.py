"""Likeness_PoseSet: the poses of a comparison, and their picture for an OpenPose ControlNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..comparison.keypoints import poses_of_keypoints, yoga_poses
from ..comparison.poses import Pose, draw_pose, fit_pose
from .host import io
from .sockets import KeypointsType, PosesType
from .widgets import side

ALL = "all four yoga poses"


class PoseSet(io.ComfyNode):
    """Poses as OpenPose-18 keypoints: the yoga poses, or those of a connected wire."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Likeness_PoseSet",
            display_name="Pose Set (Likeness)",
            category="Likeness",
            description=(
                "Poses for an OpenPose ControlNet. A comparison chooses one at random for each "
                "prompt, always the same for its seed, and fits it to the canvas so that no limb "
                "leaves it."
            ),
            inputs=[
                io.Combo.Input(
                    "poses",
                    options=[ALL, *(pose.name for pose in yoga_poses())],
                    tooltip="The poses, unless keypoints are connected.",
                ),
                side("width", 768, "Width of the preview."),
                side("height", 1024, "Height of the preview."),
                KeypointsType.Input(
                    "keypoints",
                    optional=True,
                    tooltip="Used instead: POSE_KEYPOINT of Detect Pose or another pack.",
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

    @classmethod
    def execute(cls, poses: str, width: int, height: int, keypoints: Any = None) -> io.NodeOutput:
        """(poses, IMAGE). Raises ComparisonError for keypoints that are no pose."""
        if keypoints is not None:
            chosen = poses_of_keypoints(keypoints)
        else:
            chosen = tuple(pose for pose in yoga_poses() if poses in (ALL, pose.name))
        return io.NodeOutput(chosen, pose_images(chosen, width, height))


def pose_images(poses: Sequence[Pose], width: int, height: int) -> torch.Tensor:
    """IMAGE (N, height, width, 3) in [0, 1]: each pose fitted to the canvas and drawn."""
    drawn = (draw_pose(fit_pose(pose, width, height), width, height) for pose in poses)
    return torch.stack([torch.from_numpy(np.array(image)) for image in drawn]).float() / 255
