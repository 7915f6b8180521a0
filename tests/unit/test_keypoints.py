import json

import pytest
from likeness.comparison.errors import ComparisonError
from likeness.comparison.keypoints import (
    keypoints_of_poses,
    poses_of_keypoints,
    read_poses,
    yoga_poses,
)
from likeness.comparison.poses import JOINTS


def frame(*people, width=200, height=100):
    return {
        "canvas_width": width,
        "canvas_height": height,
        "people": [{"pose_keypoints_2d": person} for person in people],
    }


def joints(scale=(1, 1), score=1.0):
    return [
        value
        for index in range(18)
        for value in (scale[0] * index / 20, scale[1] * index / 40, score)
    ]


def test_pixels_and_shares_of_the_canvas_are_told_apart():
    (pixels,) = poses_of_keypoints(frame(joints((200, 100))))
    (shares,) = poses_of_keypoints(frame(joints()))
    assert pixels.aspect == shares.aspect == 2
    for a, b in zip(pixels.people[0], shares.people[0], strict=True):
        assert a == pytest.approx(b)
    assert shares.people[0][10] == (0.5, 0.25)


def test_what_is_written_is_read_again():
    poses = yoga_poses()
    frames = json.loads(json.dumps(keypoints_of_poses(poses, 768, 1024)))
    again = poses_of_keypoints(frames, "yoga")
    assert [pose.name for pose in again] == ["yoga-1", "yoga-2", "yoga-3", "yoga-4"]
    for pose, copy in zip(poses, again, strict=True):
        assert copy.aspect == pose.aspect
        for a, b in zip(pose.people[0], copy.people[0], strict=True):
            assert (a is None) == (b is None) and (a is None or b == pytest.approx(a))


def test_written_frames_have_the_lists_that_readers_reshape():
    (written,) = keypoints_of_poses(yoga_poses()[:1], 768, 1024)
    sizes = {name: len(values) for name, values in written["people"][0].items()}
    assert sizes == {
        "pose_keypoints_2d": 54,
        "face_keypoints_2d": 210,
        "hand_left_keypoints_2d": 63,
        "hand_right_keypoints_2d": 63,
    }


def test_joints_of_low_score_are_missing():
    points = joints()
    points[2], points[5], points[8] = 0.0, 0.29, 0.3
    (pose,) = poses_of_keypoints(frame(points))
    assert [index for index, p in enumerate(pose.people[0]) if p is None] == [0, 1]


def test_people_without_a_body_are_left_out():
    (pose,) = poses_of_keypoints(frame(None, joints(), joints(score=0.0)))
    assert len(pose.people) == 1


def test_a_person_may_reach_off_the_canvas():
    (pose,) = poses_of_keypoints(frame(joints((300, -50))))
    assert pose.people[0][17] == pytest.approx((300 * 17 / 20 / 200, -50 * 17 / 40 / 100))


def with_value(index, value):
    points = joints()
    points[index] = value
    return frame(points)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_value(3 * JOINTS.index("left knee"), float("nan")), "joint 'left knee'"),
        (with_value(2, float("inf")), "joint 'nose'"),
        (with_value(0, None), "not a list of numbers"),
        (with_value(0, "left"), "not a list of numbers"),
        (with_value(0, 10**400), "not a list of numbers"),
        (frame(7), "not a list of numbers"),
        (frame([0.5, 0.5, 1] * 5), "has 5 points instead of 18"),
        (frame([0.5, 0.5, 1] * 25), "has 25 points instead of 18"),
        (frame([]), "has 0 points"),
        (frame(), "no person"),
        (frame(joints(score=0.0)), "no person"),
        (frame(joints(), width=0), "each side must be 1 to"),
        (frame(joints(), height=10**9), "each side must be 1 to"),
        (frame(joints(), height="tall"), "canvas_width and canvas_height"),
        (frame(joints((1e9, 1))), "less than or equal to 16"),
        ({"people": [{"pose_keypoints_2d": joints()}]}, "canvas_width and canvas_height"),
        ({"canvas_width": 8, "canvas_height": 8}, "no 'people'"),
        ({"canvas_width": 8, "canvas_height": 8, "people": "me"}, "no 'people'"),
        ([frame(joints()), None], "'pose-2' is not a keypoint frame"),
        ([], "a list of frames"),
        ("people", "a list of frames"),
        (None, "a list of frames"),
        ([frame(joints())] * 1001, "too many"),
    ],
)
def test_bad_keypoints_are_errors_that_say_why(data, message):
    with pytest.raises(ComparisonError, match=message):
        poses_of_keypoints(data)


def test_pose_files_hold_a_frame_a_list_or_names(tmp_path):
    path = tmp_path / "poses.json"
    for data, names in [
        (frame(joints()), ["pose"]),
        ([frame(joints()), frame(joints())], ["pose-1", "pose-2"]),
        ({"poses": {"sitting": frame(joints())}}, ["sitting"]),
    ]:
        path.write_text(json.dumps(data))
        assert [pose.name for pose in read_poses(path)] == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"poses": {"../x": {}}}', "no 'people'"),
        ('{"poses": {}}', "not pose keypoints"),
        (json.dumps({"poses": dict.fromkeys(map(str, range(1001)))}), "1,001 frames are too many"),
    ],
)
def test_bad_pose_files_are_errors(tmp_path, text, message):
    path = tmp_path / "poses.json"
    path.write_text(text)
    with pytest.raises(ComparisonError, match=message) as error:
        read_poses(path)
    assert str(path) in str(error.value)


def test_an_absent_pose_file_is_an_error(tmp_path):
    with pytest.raises(ComparisonError, match="cannot be read"):
        read_poses(tmp_path / "absent.json")
