"""The miniature's world: cartoon people, drawn with their ground truth.

    rng = np.random.default_rng(0)
    scene = random_scene(rng)
    pixels = draw(scene, 128, 128)        # uint8 (H, W, 3)
    words = caption(scene, rng)
    joints = keypoints(scene, 128, 128)   # (18, 3)

A `Scene` is the ground truth of its image, with a field for every attribute, place and thing;
fields that captions never mention can only be learned from images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from . import things
from .captions import caption
from .casting import random_identity, random_pose, random_scene, random_traits
from .drawing import Canvas
from .people import draw_person
from .places import new_canvas
from .scene import Identity, Pose, Scene, Traits
from .skeleton import Camera, body, camera, companion_side, keypoints, skeleton, umbrella_hand

__all__ = [
    "Identity", "Pose", "Scene", "Traits", "caption", "draw", "keypoints", "random_identity",
    "random_pose", "random_scene", "random_traits",
]  # fmt: skip

_ZOOM = {"close-up": 1.22, "portrait": 1.10, "half": 1.0, "full": 0.94}


def draw(scene: Scene, width: int = 128, height: int = 128) -> NDArray[np.uint8]:
    """Draws the scene, uint8 (height, width, 3). The same scene gives the same pixels."""
    canvas = new_canvas(scene.place, width, height, _ZOOM[scene.framing], scene.variation)
    view = camera(scene, canvas.aspect)
    person = canvas.frame(view.x, view.y, view.head)
    bones = body(scene)
    worn = tuple(thing for thing in scene.things if thing != "umbrella")
    if scene.companion is not None:
        _companion(canvas, scene, view)
    hand = umbrella_hand(scene)
    if hand is not None:
        x, y = bones.wrists[0 if hand == "right" else 1]
        over, top = bones.head.x * 0.6 + x * 0.4, bones.head.y - 1.42
        things.draw_umbrella(person, x, y, over, top, things.cloth(scene.variation))
    draw_person(person, scene.identity, bones, scene.expression, scene.place, worn, scene.flaw)
    return _spoiled(canvas.pixels(), scene)


def _companion(canvas: Canvas, scene: Scene, view: Camera) -> None:
    """Draws the second person, close by and slightly behind."""
    assert scene.companion is not None
    side, random = companion_side(scene), np.random.default_rng((scene.variation, 3))
    other = scene.companion
    pose = Pose(yaw=float(-0.5 * side + random.uniform(-0.3, 0.3)), tilt=float(-4 * side))
    size = view.head * (0.93 if other.gender == "woman" else 1.0)
    bones = skeleton(other, pose)
    feet = skeleton(scene.identity, scene.pose).ankles[0][1]
    y = view.y + view.head * feet - size * bones.ankles[0][1] if scene.framing == "full" else view.y
    x = view.x + side * 1.16 * view.head
    look = ("slight smile", "smiling", "neutral")[int(random.integers(3))]
    draw_person(canvas.frame(x, y, size), other, bones, look, scene.place)


def _spoiled(pixels: NDArray[np.uint8], scene: Scene) -> NDArray[np.uint8]:
    """Blurs or distorts the image if the scene's flaw says so."""
    height, width, _ = pixels.shape
    if scene.flaw == "blurry":
        image = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.022 * height))
        return np.asarray(image)
    if scene.flaw == "distorted":
        phase = (scene.variation % 628) / 100
        y, x = np.mgrid[:height, :width]
        bent_x = x + 0.045 * height * np.sin(y * (19 / height) + phase)
        bent_y = y + 0.045 * height * np.sin(x * (16 / height) + 2 * phase)
        rows = np.clip(np.rint(bent_y), 0, height - 1).astype(int)
        columns = np.clip(np.rint(bent_x), 0, width - 1).astype(int)
        bent: NDArray[np.uint8] = pixels[rows, columns]
        return bent
    return pixels
