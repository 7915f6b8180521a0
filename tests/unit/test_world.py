"""The miniature's world draws what its scenes say."""

from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("aggdraw", reason="drawing the world needs the extra `demo`")

from likeness.demo import scene as truth
from likeness.demo.places import new_canvas
from likeness.demo.scene import Identity, Pose, Scene, Traits
from likeness.demo.subject import FOLDER, SUBJECT, subject_scenes, write_subject
from likeness.demo.world import (
    caption,
    draw,
    keypoints,
    random_identity,
    random_pose,
    random_scene,
)


def scenes(seed: int, count: int, **wishes) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [random_scene(rng, **wishes) for _ in range(count)]


def difference(a: np.ndarray, b: np.ndarray) -> int:
    """The largest difference of a pixel."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def test_the_same_seed_gives_the_same_images():
    for first, second in zip(scenes(5, 8, flaws=0.5), scenes(5, 8, flaws=0.5), strict=True):
        assert first == second
        assert np.array_equal(draw(first), draw(second))


@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 128), (128, 128), (160, 96)])
def test_an_image_has_the_asked_shape(width, height):
    for scene in scenes(1, 6):
        pixels = draw(scene, width, height)
        assert pixels.shape == (height, width, 3)
        assert pixels.dtype == np.uint8


def test_a_large_image_shows_the_same_as_a_small_one():
    for scene in scenes(2, 6):
        small = draw(scene, 96, 128).astype(float)
        large = Image.fromarray(draw(scene, 384, 512)).resize((96, 128), Image.Resampling.BOX)
        assert np.abs(np.asarray(large, float) - small).mean() < 3


@pytest.mark.parametrize("trait", [field.name for field in fields(Traits)])
def test_a_trait_shows_in_the_image_but_not_in_the_caption(trait):
    scene = Scene(framing="half")
    views = [
        replace(scene, identity=Identity(traits=replace(Traits(), **{trait: value})))
        for value in (-1.0, 1.0)
    ]
    assert difference(*(draw(view) for view in views)) > 15
    for seed in range(20):
        told = {caption(view, np.random.default_rng(seed)) for view in views}
        assert len(told) == 1


@pytest.mark.parametrize(
    ("attribute", "values"),
    [
        ("gender", truth.GENDERS),
        ("skin", truth.SKINS),
        ("hair_style", sorted({s for styles in truth.HAIR_STYLES.values() for s in styles})),
        ("hair_colour", truth.HAIR_COLOURS),
        ("beard", truth.BEARDS),
        ("eyes", truth.EYE_COLOURS),
        ("build", truth.BUILDS),
        ("shirt_colour", truth.SHIRT_COLOURS),
        ("shirt_style", truth.SHIRT_STYLES),
        ("glasses", (False, True)),
        ("wrinkles", (False, True)),
    ],
)
def test_every_value_of_an_attribute_looks_different_even_at_64_pixels(attribute, values):
    images = [
        draw(Scene(identity=replace(Identity(), **{attribute: value})), 64, 64) for value in values
    ]
    for i, first in enumerate(images):
        for second in images[i + 1 :]:
            assert difference(first, second) > 15


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("expression", truth.EXPRESSIONS),
        ("framing", truth.FRAMINGS),
        ("place", truth.PLACES),
        ("things", [(), *((thing,) for thing in truth.THINGS)]),
        ("companion", (None, Identity(gender="woman", hair_style="long"))),
        ("flaw", (None, *truth.FLAWS)),
        ("variation", (2, 4, 6)),
    ],
)
def test_every_part_of_a_scene_changes_the_image(part, values):
    scene = Scene(place="kitchen", variation=2)
    images = [draw(replace(scene, **{part: value})) for value in values]
    for i, first in enumerate(images):
        for second in images[i + 1 :]:
            assert difference(first, second) > 40


def test_forty_people_are_forty_different_faces():
    rng = np.random.default_rng(3)
    faces = [draw(Scene(identity=random_identity(rng)), 64, 64).astype(int) for _ in range(40)]
    for i, first in enumerate(faces):
        assert all(np.abs(first - other).mean() > 3 for other in faces[i + 1 :])


def test_a_wanted_identity_framing_and_place_are_kept():
    who = random_identity(np.random.default_rng(8), "woman")
    assert who.gender == "woman"
    for scene in scenes(9, 20, identity=who, framing="full", place="beach"):
        assert (scene.identity, scene.framing, scene.place) == (who, "full", "beach")


@pytest.mark.parametrize("name", ["standing", "arms raised", "tree", "warrior", "triangle"])
@pytest.mark.parametrize(("width", "height"), [(128, 128), (96, 128)])
def test_all_joints_of_a_whole_figure_lie_on_the_drawn_person(name, width, height):
    rng = np.random.default_rng(4)
    traits = Traits(trousers=-1.0)  # dark, before a light backdrop
    for _ in range(5):
        who = replace(random_identity(rng), skin="dark", shirt_colour="red", traits=traits)
        scene = random_scene(rng, identity=who, framing="full", place="plain")
        scene = replace(scene, pose=replace(random_pose(rng, name), yaw=0.0), companion=None)
        joints = keypoints(scene, width, height)
        assert joints[:, 2].all()
        assert ((joints[:, :2] > 0) & (joints[:, :2] < 1)).all()
        empty = new_canvas("plain", width, height, 0.94, scene.variation).pixels().astype(int)
        drawn = np.abs(draw(scene, width, height) - empty).max(axis=2) > 12  # (H, W)
        columns, rows = (joints[:, :2] * (width, height)).astype(int).T
        assert drawn[rows, columns].all()


def test_a_hand_is_where_its_wrist_is():
    down = Pose(arms=(8.0, 4.0, 8.0, 4.0))
    raised = replace(down, arms=(8.0, 4.0, 90.0, 90.0))  # the left arm goes to the image's right
    before, after = (Scene(framing="full", pose=pose) for pose in (down, raised))
    x, y, visible = keypoints(after)[7]
    assert visible and x > keypoints(before)[7, 0]
    at = np.s_[int(y * 128), int(x * 128)]
    assert np.abs(draw(before)[at].astype(int) - draw(after)[at]).max() > 40


def test_a_joint_outside_the_image_and_a_hidden_ear_are_not_visible():
    joints = keypoints(Scene(framing="close-up", pose=Pose(yaw=1.0)))
    assert (joints[8:14] == 0).all()  # hips, knees, ankles
    assert joints[16, 2] == 1 and (joints[17] == 0).all()  # the far ear is the left one


def test_the_umbrella_is_held_by_a_raised_hand():
    scene = Scene(framing="full")
    held, free = replace(scene, things=("umbrella",)), scene
    higher = keypoints(free)[[4, 7], 1] - keypoints(held)[[4, 7], 1]
    assert higher.max() > 0.1


def test_the_subject_is_one_person_seen_in_many_ways():
    shots = subject_scenes(SUBJECT, seed=0)
    assert len(shots) == 15
    assert {shot.identity for shot in shots} == {SUBJECT}
    assert {shot.framing for shot in shots} == set(truth.FRAMINGS)
    assert {shot.expression for shot in shots} == set(truth.EXPRESSIONS)
    assert {shot.place for shot in shots} == set(truth.PLACES)
    assert all(not shot.things and shot.companion is None for shot in shots)


def test_the_images_in_the_repository_are_the_subject():
    kept = sorted(FOLDER.glob("*.png"))
    assert [path.name for path in kept] == [f"{k:02d}.png" for k in range(1, 16)]
    for path, shot in zip(kept, subject_scenes(SUBJECT, seed=0), strict=True):
        image = np.asarray(Image.open(path).convert("RGB"), float)
        assert np.abs(image - draw(shot, 256, 256)).mean() < 2


def test_any_other_subject_can_be_written(tmp_path):
    first, other = (write_subject(tmp_path / str(seed), seed, 3, size=64) for seed in (1, 2))
    assert [path.name for path in first] == ["01.png", "02.png", "03.png"]
    assert Image.open(first[0]).size == (64, 64)
    assert first[0].read_bytes() != other[0].read_bytes()
