"""The judge of the drawn world as an encoder of comparison/."""

import numpy as np
import pytest
import torch
from likeness.comparison.encoders import MissingEncoder, PoseEncoder, PromptEncoder
from likeness.comparison.matrix import ImageSettings
from likeness.comparison.poses import Pose
from likeness.demo import encoder as module
from likeness.demo.encoder import JudgeEncoder, find_judge
from likeness.demo.facts import QUESTIONS
from likeness.demo.judge_networks import JudgeOutput
from PIL import Image


def judge(images):
    """Sees in a red image a man with an umbrella, in a grey one nobody; identity is blue."""
    red, _, blue = (float(value) for value in images[0, 0, 0])
    answers = {question: torch.zeros(1, len(choices)) for question, choices in QUESTIONS.items()}
    said = {"gender": "man", "umbrella": "yes"} if red > 200 else {"kind": "reject"}
    for question, answer in said.items():
        answers[question][:, QUESTIONS[question].index(answer)] = 9.0
    identity = torch.zeros(1, 64)
    identity[0, int(blue)] = 1.0
    joints = torch.full((1, 18, 2), 0.5)
    return JudgeOutput(answers, torch.zeros(1, 26), identity, joints, torch.zeros(1, 18))


def seen(*colours):
    return ENCODER.encode([Image.new("RGB", (16, 16), colour) for colour in colours])


ENCODER = JudgeEncoder(judge, "d" * 64)
SMALL = ImageSettings(width=96, height=128)


def test_it_is_an_encoder_that_reads_prompts_and_poses():
    assert isinstance(ENCODER, PromptEncoder) and isinstance(ENCODER, PoseEncoder)
    assert ENCODER.identity_only


def test_likeness_is_of_identities_and_nobody_is_like_no_one():
    vectors = seen((255, 0, 3), (255, 0, 3), (255, 0, 4), (90, 90, 3))
    assert np.isnan(vectors).all(1).tolist() == [False, False, False, True]
    alike = ENCODER.likeness(vectors, vectors[:1])
    assert alike[:, 0].tolist() == [1.0, 1.0, 0.0, 0.0]


def test_a_remembered_opinion_answers_as_a_fresh_one():
    vectors = seen((255, 0, 3), (90, 90, 9), (255, 0, 3))
    match = ENCODER.prompt_match(
        vectors, ["a man with umbrella", "a man with umbrella", "a woman with umbrella"]
    )
    assert match.tolist() == [1.0, 0.0, 0.5]
    assert np.isnan(ENCODER.prompt_match(vectors[:1], ["high quality"]))


def test_the_pose_is_that_of_the_joints_asked_for():
    point = (0.5, 0.75)
    pose = Pose(name="p", aspect=1.0, people=((point, *[None] * 17),))
    error = ENCODER.pose_error(seen((255, 0, 3), (90, 90, 9)), [pose, pose])
    assert error[0] == pytest.approx(0.25) and np.isnan(error[1])


def test_without_weights_it_is_left_out_with_one_line(monkeypatch, tmp_path):
    find = module.weights.find
    monkeypatch.setattr(module.weights, "find", lambda name: find(name, tmp_path))
    with pytest.raises(MissingEncoder, match="missing or damaged") as error:
        find_judge(SMALL)
    assert "\n" not in str(error.value) and str(tmp_path) not in str(error.value)


def test_a_comparison_of_photographs_is_not_scored_by_the_judge_of_drawings():
    assert find_judge(ImageSettings()) is None
    assert find_judge(ImageSettings(width=512, height=512)) is None
    assert isinstance(find_judge(SMALL), JudgeEncoder)
