"""Our drawings of poses beside those that controlnet_aux made of the same keypoints, stored."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from likeness.comparison.keypoints import yoga_poses
from likeness.comparison.poses import draw_pose, fit_pose
from PIL import Image

FOLDER = Path(__file__).parent / "poses"
STORE = runpy.run_path(str(FOLDER / "store.py"))


@pytest.mark.parametrize("size", STORE["SIZES"])
@pytest.mark.parametrize("pose", yoga_poses(), ids=lambda pose: pose.name)
def test_a_pose_is_drawn_as_controlnet_aux_draws_it(pose, size):
    width, height = size
    with Image.open(FOLDER / f"{pose.name}-{width}x{height}.png") as image:
        reference = np.asarray(image.convert("RGB"))
    assert reference.shape == (height, width, 3)
    STORE["assert_alike"](np.asarray(draw_pose(fit_pose(pose, *size), *size)), reference)


def test_another_drawing_is_told_from_it():
    one, other = yoga_poses()[:2]
    drawn = [np.asarray(draw_pose(fit_pose(pose, 512, 512), 512, 512)) for pose in (one, other)]
    with pytest.raises(AssertionError):
        STORE["assert_alike"](*drawn)
    with pytest.raises(AssertionError):
        STORE["assert_alike"](drawn[0], np.roll(drawn[0], 2, axis=1))
    with pytest.raises(AssertionError):
        STORE["assert_alike"](drawn[0][..., ::-1], drawn[0])
