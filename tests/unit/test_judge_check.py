import json

import numpy as np
import pytest
import torch
from likeness.demo import judge_check, weights
from likeness.demo.facts import QUESTIONS, UNKNOWN, asked
from likeness.demo.judge_check import Asked
from likeness.trainers.errors import BaseModelError


def answers(**said):
    return Asked({q: np.array([QUESTIONS[q].index(a) for a in given]) for q, given in said.items()})


def test_what_could_not_be_told_by_eye_does_not_count():
    judge = answers(hat=["yes", "no", "no"])
    labels = [{"hat": "yes"}, {}, {"hat": "yes"}]
    assert judge.right("hat", labels) == (1, 2)
    assert judge.right("hat", [{}, {}, {}]) == (0, 0)


def test_a_label_may_leave_open_which_of_several_answers_it_is():
    judge = answers(company=["man", "woman", "nobody"])
    assert judge.right("company", [{"company": "man|woman"}] * 3) == (2, 3)


def test_the_commonest_answer_is_what_a_constant_judge_has():
    assert judge_check.commonest(torch.tensor([0, 2, 2, 2, UNKNOWN])) == 0.75
    assert judge_check.commonest(torch.tensor([UNKNOWN])) == 0


def test_judges_agree_where_they_say_the_same():
    one, other = answers(place=["beach", "forest"]), answers(place=["beach", "office"])
    assert one.agrees("place", one) == 1
    assert one.agrees("place", other) == 0.5


def test_the_captions_are_always_the_same_and_ask_for_something():
    captions = judge_check.captions()
    assert captions == judge_check.captions() and len(set(captions)) > 90
    assert all(asked(text) for text in captions)
    assert not any("sks" in text for text in captions)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / weights.CHECKPOINT).write_bytes(b"weights")
    weights.write_digests(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": "0" * 64}, "of another miniature"),
        ({"labels": [{"hat": "yes"}, {"hat": "maybe"}]}, "image 1: unknown answer hat: maybe"),
        ({"labels": [{"mood": "good"}]}, "image 0: unknown answer mood: good"),
        ({"labels": [{"hat": "yes|often"}]}, "image 0: unknown answer hat: often"),
    ],
)
def test_labels_that_do_not_fit_are_refused(folder, tmp_path, change, message):
    stored = {"checkpoint": weights.digest(folder / weights.CHECKPOINT), "labels": [{"hat": "no"}]}
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(stored))
    assert judge_check.read_labels(folder, path) == [{"hat": "no"}]
    path.write_text(json.dumps(stored | change))
    with pytest.raises(BaseModelError, match=message):
        judge_check.read_labels(folder, path)
