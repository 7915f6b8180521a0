"""Likeness_DetectPose: poses of people in images, by controlnet_aux's OpenPose, offline."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from ..comparison.errors import ComparisonError
from ..comparison.keypoints import keypoints_of_poses
from ..comparison.poses import Pose
from ..trainers.errors import LikenessError
from ..trainers.packages import is_installed
from ..trainers.weights import refuse_unsafe_pickles
from .host import find_files, interrupted, io, models_folder
from .paths import safe_join
from .pose_set import pose_images
from .sockets import KeypointsType
from .widgets import with_search_aliases

WEIGHTS = "body_pose_model.pth"
HF_REPO = "lllyasviel/Annotators"  # also the folder below that of CKPTS_ENV
CKPTS_ENV = "AUX_ANNOTATOR_CKPTS_PATH"  # where comfyui_controlnet_aux keeps its files
DETECTION_SIDE = 512  # shorter side in pixels, as in controlnet_aux's own __call__


class DetectPose(io.ComfyNode):
    """Detects poses in the user's images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="Likeness_DetectPose",
            display_name="Detect Pose (Likeness)",
            category="Likeness",
            description=(
                "Detects the poses of people in images, for Pose Set. Needs the package "
                f"controlnet_aux and the file {WEIGHTS}; nothing is downloaded."
            ),
            inputs=[
                io.Image.Input("images", tooltip="Images of people; each image gives one pose."),
                io.String.Input(
                    "folder",
                    default="annotators",
                    tooltip=f"The folder below ComfyUI's models that contains {WEIGHTS}. Also "
                    "searched: the folders of extra_model_paths.yaml, and comfyui_controlnet_aux's "
                    f"if {CKPTS_ENV} is set.",
                ),
            ],
            outputs=[
                KeypointsType.Output(id="keypoints", display_name="keypoints"),
                io.Image.Output(id="preview", display_name="preview"),
            ],
        )
        return with_search_aliases(schema, "openpose", "dwpose", "preprocessor")

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool:
        """Checks for the package and the weights before the queue starts. Raises LikenessError."""
        check_package()
        if folder is not None:
            find_weights(folder)
        return True

    @classmethod
    def execute(cls, images: torch.Tensor, folder: str) -> io.NodeOutput:
        """(POSE_KEYPOINT, IMAGE). Raises ComparisonError if an image shows nobody."""
        check_package()
        height, width = images.shape[1:3]
        detector = load_detector(find_weights(folder))
        poses = []
        for number, image in enumerate(images, start=1):
            interrupted()
            poses.append(detect(detector, image, f"image-{number}"))
        frames = keypoints_of_poses(poses, width, height)
        return io.NodeOutput(frames, pose_images(poses, width, height))


def find_weights(folder: str) -> Path:
    """The weights of OpenPose's body model, in `folder` below ComfyUI's models or elsewhere.

    Raises LikenessError, which says what to install.
    """
    try:
        own = safe_join(models_folder(), folder) / WEIGHTS
    except LikenessError as error:
        raise ComparisonError(f"{error} {_install_hint(folder)}") from None
    for path in _candidate_paths(own, folder):
        if path.is_file():
            return path
    raise ComparisonError(f"{own.parent} has no {WEIGHTS}. {_install_hint(folder)}")


def _candidate_paths(own: Path, folder: str) -> Iterator[Path]:
    """Where the weights may be: `own`, any model folder, that of `CKPTS_ENV` if set."""
    yield own
    yield from find_files(f"{folder}/{WEIGHTS}")
    yield from find_files(WEIGHTS)
    if ckpts := os.environ.get(CKPTS_ENV):
        yield Path(ckpts, HF_REPO, WEIGHTS)


def _install_hint(folder: str) -> str:
    return (
        f"Put {WEIGHTS} from the Hugging Face repository {HF_REPO} into models/{folder}, a folder "
        f"of extra_model_paths.yaml, or the one that {CKPTS_ENV} names; or use Pose Set's yoga "
        "poses, which need no file."
    )


def check_package() -> None:
    """Raises ComparisonError unless controlnet_aux is installed."""
    if not is_installed("controlnet_aux"):
        raise ComparisonError(
            "Detect Pose needs the package controlnet_aux: install it in ComfyUI's Python, or use "
            "Pose Set's yoga poses, or connect another pack's POSE_KEYPOINT to Pose Set."
        )


def load_detector(path: Path) -> Any:
    """Loads controlnet_aux's OpenposeDetector for bodies. Raises LikenessError."""
    try:
        from controlnet_aux.open_pose import OpenposeDetector
        from controlnet_aux.open_pose.body import Body
    except ImportError as error:
        raise ComparisonError(
            f"The package controlnet_aux cannot be imported ({error}): install what is missing in "
            "ComfyUI's Python."
        ) from None
    refuse_unsafe_pickles(path)
    try:
        with _weights_only():
            return OpenposeDetector(Body(str(path)))
    except Exception as error:  # noqa: BLE001 - a file of another model can raise anything
        raise ComparisonError(
            f"{path} cannot be read as OpenPose's body model "
            f"({type(error).__name__}): download it again."
        ) from None


@contextmanager
def _weights_only() -> Iterator[None]:
    """Forces weights_only: controlnet_aux omits it, and before torch 2.6 that runs pickles."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def detect(detector: Any, image: torch.Tensor, name: str) -> Pose:
    """The poses of all people in an image (H, W, 3) in [0, 1].

    Raises ComparisonError if there is nobody.
    """
    pixels = (image[..., :3].cpu().numpy() * 255).clip(0, 255).astype(np.uint8)
    sized = Image.fromarray(pixels)
    if min(sized.size) > DETECTION_SIDE:
        ratio = DETECTION_SIDE / min(sized.size)
        width, height = (max(1, round(side * ratio)) for side in sized.size)
        sized = ImageOps.fit(sized, (width, height))
    found = detector.detect_poses(np.array(sized))
    people = tuple(
        tuple(point and (float(point.x), float(point.y)) for point in person.body.keypoints)
        for person in found
    )
    if not people:
        raise ComparisonError(f"Nobody is found on {name}: choose an image that shows a body.")
    return Pose(name=name, aspect=image.shape[1] / image.shape[0], people=people)
