"""Stores controlnet_aux's drawings of the yoga poses, for tests without that package.

    ~/comfy/venv/bin/python tests/golden/poses/store.py

Needs a Python with controlnet_aux (here 0.0.10) and this project's own packages. Writes
`<pose>-<width>x<height>.png` beside this file: what its `draw_bodypose` makes of our keypoints.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
SIZES = ((768, 1024), (512, 512))


def theirs(pose: Any, width: int, height: int) -> np.ndarray:
    """A pose as controlnet_aux draws it: (height, width, 3), uint8."""
    from controlnet_aux.open_pose import util

    canvas = np.zeros((height, width, 3), np.uint8)
    for person in pose.people:
        joints = [point and SimpleNamespace(x=point[0], y=point[1]) for point in person]
        canvas = util.draw_bodypose(canvas, joints)
    return canvas


def assert_alike(ours: np.ndarray, reference: np.ndarray) -> None:
    """That two drawings differ by rims of one pixel only."""
    differing = (ours != reference).any(axis=2)
    assert differing.sum() < 0.06 * reference.any(axis=2).sum()
    # There the reference's colour is in ours one pixel away, but for a few where three limbs meet.
    padded = np.pad(ours, ((1, 1), (1, 1), (0, 0)), mode="edge")
    near = [
        (padded[y : y + 3, x : x + 3] == reference[y, x]).all(axis=2).any()
        for y, x in np.argwhere(differing)
    ]
    assert near.count(False) <= 4


def main() -> None:
    """Writes the drawings."""
    runpy.run_path(str(HERE.parents[2] / "__main__.py"), run_name="x")["load_package"]()
    from likeness.comparison.keypoints import yoga_poses
    from likeness.comparison.poses import fit_pose

    for width, height in SIZES:
        for pose in yoga_poses():
            drawing = theirs(fit_pose(pose, width, height), width, height)
            path = HERE / f"{pose.name}-{width}x{height}.png"
            Image.fromarray(drawing).quantize(64, dither=Image.Dither.NONE).save(
                path, optimize=True
            )
            assert (np.asarray(Image.open(path).convert("RGB")) == drawing).all(), path


if __name__ == "__main__":
    main()
