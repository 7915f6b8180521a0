"""What is measured of the judges' scores."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from likeness.demo import judge_scores, pretrain_judge, weights
from likeness.demo.facts import QUESTIONS
from likeness.demo.judge import load_judge
from likeness.demo.judge_scores import Scores


def scores(first, second):
    """Of one person, whose images both judges give these numbers."""
    of = np.stack([first, second])
    return Scores(base=of, named=of + 1, drawn=of + 2)


def test_judges_of_one_mind_correlate():
    rng = np.random.default_rng(0)
    people = [scores(numbers, numbers) for numbers in rng.random((3, 6))]
    said = judge_scores._agreement(people)
    assert "over 54 images 1.00" in said and "over the 9 means of six 1.00" in said
    others = [scores(rng.random(6), -numbers.base[0]) for numbers in people]
    assert "1.00" not in judge_scores._agreement(others)


def test_what_is_rejected_is_counted_by_the_way_it_was_spoiled():
    """A judge that rejects what is not all of one colour."""

    def judge(images):
        plain = np.ptp(images.reshape(len(images), -1, 3), axis=1).max(1) == 0
        kind = torch.zeros(len(images), len(QUESTIONS["kind"]))
        kind[:, QUESTIONS["kind"].index("reject")] = torch.from_numpy(~plain).float()
        return SimpleNamespace(answers={"kind": kind})

    plain = torch.arange(1, 13, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 32, 32, 3)
    pool = {"pixels": plain.clone(), "facts": torch.zeros(12, len(QUESTIONS))}
    first, _ = judge_scores._rejects([judge, judge], pool)
    ways = pretrain_judge.SPOILED
    assert f"0 % of {ways[1]}, 100 % of {ways[2]}, and 0.0 % of intact" in first


def test_the_judge_of_the_repository_tells_people_places_and_things():
    """Not one that says the same of all: the drawings are of scenes it never saw."""
    pytest.importorskip("aggdraw", reason="draws")
    from likeness.demo import world
    from likeness.demo.casting import random_identity, random_scene
    from likeness.demo.facts import truth

    rng = np.random.default_rng(77)
    people = [random_identity(rng, "man") for _ in range(6) for _ in (0, 1)]
    people = [who for who in people[:6] for _ in range(4)]
    scenes = [random_scene(rng, who) for who in people]
    judge = load_judge(weights.find(weights.JUDGE))
    opinion = judge(np.stack([world.draw(scene, 96, 128) for scene in scenes]))
    told = np.stack([truth(scene) for scene in scenes])
    for question in ("place", "framing", "shirt_colour", "hair_colour"):
        column = list(QUESTIONS).index(question)
        known = told[:, column] >= 0
        said = opinion.answers[question].argmax(1).numpy()
        assert (said == told[:, column])[known].mean() >= 0.8, question
        assert len(set(told[known, column])) > 2
    likeness = (opinion.identity @ opinion.identity.T).numpy()
    same = np.kron(np.eye(6, dtype=bool), np.ones((4, 4), bool))
    assert likeness[same & ~np.eye(24, dtype=bool)].mean() > likeness[~same].mean() + 0.4
