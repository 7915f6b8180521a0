from math import dist

import numpy as np
import pytest
from likeness.comparison.errors import ComparisonError
from likeness.comparison.keypoints import yoga_poses
from likeness.comparison.poses import (
    COLOURS,
    JOINTS,
    LIMBS,
    Pose,
    choose_pose,
    draw_pose,
    fit_pose,
)
from pydantic import ValidationError

YOGA = {pose.name: pose for pose in yoga_poses()}
CANVASES = [(768, 1024), (512, 512), (1024, 512), (256, 1024), (96, 128), (8, 8)]


def lengths(pose):
    """Length of each limb between named joints, in units of shoulder width of the pose."""
    points = dict(zip(JOINTS, pose.people[0], strict=True))
    placed = {name: (p[0] * pose.aspect, p[1]) for name, p in points.items() if p}
    limbs = {
        (JOINTS[a], JOINTS[b]): dist(placed[JOINTS[a]], placed[JOINTS[b]])
        for a, b in LIMBS
        if JOINTS[a] in placed and JOINTS[b] in placed
    }
    width = dist(placed["right shoulder"], placed["left shoulder"])
    return {limb: length / width for limb, length in limbs.items()}


def person(**points):
    """18 joints, those of `points` seen."""
    return tuple(points.get(joint.replace(" ", "_")) for joint in JOINTS)


def test_there_are_four_yoga_poses():
    assert list(YOGA) == ["tree", "warrior-two", "goddess", "lotus"]


@pytest.mark.parametrize("name", YOGA)
def test_the_limbs_of_both_sides_are_alike(name):
    limbs = lengths(YOGA[name])
    for limb in [("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")]:
        right, left = (
            limbs[f"{side} {limb[0]}", f"{side} {limb[1]}"] for side in ("right", "left")
        )
        assert right == pytest.approx(left, rel=0.05), limb


@pytest.mark.parametrize("name", YOGA)
def test_the_proportions_are_human(name):
    # Segment lengths over the distance of the shoulder joints, D. Winter, Biomechanics and Motor
    # Control of Human Movement; foreshortening makes them shorter only.
    limbs = lengths(YOGA[name])
    for limb, low, high in [
        (("right shoulder", "right elbow"), 0.65, 0.85),
        (("right elbow", "right wrist"), 0.55, 0.72),
        (("right hip", "right knee"), 0.7, 1.15),
        (("right knee", "right ankle"), 0.95, 1.2),
        (("neck", "right hip"), 1.15, 1.55),
        (("neck", "nose"), 0.35, 0.55),
    ]:
        assert low <= limbs[limb] <= high, limb


@pytest.mark.parametrize("name", YOGA)
def test_yoga_poses_show_the_face(name):
    seen = dict(zip(JOINTS, YOGA[name].people[0], strict=True))
    assert all(seen[joint] for joint in ("nose", "right eye", "left eye"))


@pytest.mark.parametrize("size", CANVASES)
@pytest.mark.parametrize("name", YOGA)
def test_no_limb_leaves_the_canvas_and_proportions_stay(name, size):
    fitted = fit_pose(YOGA[name], *size)
    points = np.array([point for point in fitted.people[0] if point])
    assert points.min() >= 0.03 * min(size) / max(size) and points.max() <= 1
    assert lengths(fitted) == pytest.approx(lengths(YOGA[name]))
    spans = (points.max(axis=0) - points.min(axis=0)) * size / min(size)
    assert spans.max() > 0.5, "smaller than it need be"


def test_a_pose_that_lies_inside_stays_as_it_is():
    pose = YOGA["tree"]
    for before, after in zip(pose.people[0], fit_pose(pose, 384, 512).people[0], strict=True):
        assert after == pytest.approx(before)


def test_a_limb_off_the_canvas_is_brought_in_with_its_hand():
    arm = person(right_shoulder=(0.5, 0.5), right_elbow=(0.8, 0.5), right_wrist=(1.1, 0.5))
    wrist = fit_pose(Pose(name="arm", aspect=1, people=(arm,)), 512, 512).people[0][4]
    assert wrist[0] < 0.9, "no room for the hand"


def test_a_pose_keeps_its_place_in_the_middle_of_a_wide_image():
    seated = person(nose=(0.5, 0.3), neck=(0.5, 0.4), right_hip=(0.48, 0.7))
    nose = fit_pose(Pose(name="far", aspect=2, people=(seated,)), 512, 512).people[0][0]
    assert nose == pytest.approx((0.5, 0.3))


def test_several_people_are_fitted_together():
    two = Pose(name="two", aspect=3, people=(person(neck=(0.0, 0.5)), person(neck=(1.0, 0.5))))
    (left,), (right,) = ([p for p in each if p] for each in fit_pose(two, 100, 100).people)
    assert (left, right) == (pytest.approx((0.03, 0.5)), pytest.approx((0.97, 0.5)))


def test_a_single_joint_can_be_fitted_and_drawn():
    nose = Pose(name="nose", aspect=1, people=(person(nose=(3.0, -2.0)),))
    fitted = fit_pose(nose, 64, 64)
    assert fitted.people[0][0] == pytest.approx((0.97, 0.03))
    assert np.asarray(draw_pose(fitted, 64, 64)).any()


def test_the_drawing_has_openpose_s_colours():
    image = np.asarray(draw_pose(YOGA["goddess"], 768, 1024))
    for index, (x, y) in enumerate(YOGA["goddess"].people[0]):
        assert tuple(image[int(y * 1024), int(x * 768)]) == COLOURS[index]
    hip, knee = np.array(YOGA["goddess"].people[0][8:10]) * (768, 1024)
    x, y = (hip + knee) / 2
    assert tuple(image[int(y), int(x)]) == (0, 153, 51)  # OpenPose's right thigh


def test_a_missing_joint_takes_its_limbs_with_it():
    whole, *_ = yoga_poses()
    joints = list(whole.people[0])
    joints[JOINTS.index("left knee")] = None
    partial = Pose(name="partial", aspect=whole.aspect, people=(tuple(joints),))
    colours = {tuple(c) for c in np.asarray(draw_pose(partial, 384, 512)).reshape(-1, 3)}
    thigh, shin = ((0, 102, 153), (0, 51, 153))
    assert not colours & {thigh, shin, COLOURS[JOINTS.index("left knee")]}
    assert len(colours) == 1 + 18 + 17 - 3


def test_sticks_are_thinner_on_small_canvases():
    areas = [
        np.asarray(draw_pose(YOGA["tree"], *size)).any(axis=2).mean()
        for size in ((384, 512), (96, 128))
    ]
    assert areas[0] == pytest.approx(areas[1], rel=0.5)


def test_every_pose_is_chosen_about_equally_often_and_always_the_same():
    poses = yoga_poses()
    names = [choose_pose(poses, 7, f"prompt-{i}").name for i in range(2000)]
    assert all(400 < names.count(pose.name) < 600 for pose in poses)
    assert names[:5] == ["warrior-two", "lotus", "tree", "lotus", "warrior-two"]  # frozen
    assert names != [choose_pose(poses, 8, f"prompt-{i}").name for i in range(2000)]


def test_no_pose_to_choose_from_is_an_error():
    with pytest.raises(ComparisonError, match="no pose"):
        choose_pose((), 0, "kitchen")


@pytest.mark.parametrize("size", [(0, 512), (512, -8), (512, 100_000), (8000, 8)])
def test_absurd_canvases_are_refused(size):
    with pytest.raises(ComparisonError, match="each side must be 1 to 8192"):
        fit_pose(YOGA["tree"], *size)
    with pytest.raises(ComparisonError, match="each side must be 1 to 8192"):
        draw_pose(YOGA["tree"], *size)


@pytest.mark.parametrize("point", [(float("nan"), 0.5), (float("inf"), 0.5), (17.0, 0.5)])
def test_points_that_are_nowhere_are_refused(point):
    with pytest.raises(ValidationError):
        Pose(name="bad", aspect=1, people=(person(nose=point),))
