"""Our drawings of poses beside those of controlnet_aux, which wrote the ControlNets' inputs.

Where that package is not installed, `tests/golden/test_pose_drawings.py` has its stored drawings.
"""

import runpy
from pathlib import Path

import numpy as np
import pytest
from likeness.comparison.keypoints import yoga_poses
from likeness.comparison.poses import Pose, draw_pose, fit_pose

pytest.importorskip(
    "controlnet_aux.open_pose.util", reason="needs controlnet_aux", exc_type=ImportError
)
STORE = runpy.run_path(str(Path(__file__).parents[1] / "golden" / "poses" / "store.py"))


def random_pose(seed):
    random = np.random.default_rng(seed)
    people = tuple(
        tuple(
            tuple(p) if random.random() < 0.8 else None for p in random.uniform(-0.1, 1.1, (18, 2))
        )
        for _ in range(2)
    )
    return Pose(name="random", aspect=1, people=people)


CASES = [(fit_pose(pose, *size), size) for size in STORE["SIZES"] for pose in yoga_poses()]
CASES += [(random_pose(seed), (640, 448)) for seed in range(4)]


@pytest.mark.parametrize(("pose", "size"), CASES)
def test_drawings_differ_by_rims_of_one_pixel_only(pose, size):
    ours = np.asarray(draw_pose(pose, *size, stick_width=4))
    STORE["assert_alike"](ours, STORE["theirs"](pose, *size))
