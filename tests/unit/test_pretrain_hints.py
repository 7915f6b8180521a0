"""Skeletons and captions that a ControlNet learns from."""

import pytest
import torch

pytest.importorskip("aggdraw", reason="draws the world")

from likeness.demo.pretrain_data import token_ids
from likeness.demo.pretrain_hints import beside_skeletons, hints, reframed
from likeness.demo.tokenizer import vocabulary


def test_a_hint_shows_joints_where_they_are():
    joints = torch.zeros(1, 18, 3)
    joints[0, 1] = torch.tensor((0.5, 0.25, 1))  # neck
    joints[0, 2] = torch.tensor((0.25, 0.25, 1))  # right shoulder
    image = hints(joints, 96, 128, torch.tensor([2.0]))[0]  # (3, 128, 96)
    assert torch.allclose(image[:, 32, 48], torch.tensor((255, 85, 0)) / 255, atol=0.02)
    assert torch.allclose(image[:, 32, 36], torch.tensor((153, 0, 0)) / 255, atol=0.02)  # limb
    assert image[:, 64:].max() == 0 and image[:, 32, 60].max() == 0


def test_a_joint_that_is_not_seen_is_not_drawn():
    assert hints(torch.zeros(2, 18, 3), 64, 64, torch.ones(2)).max() == 0


def test_a_reframed_caption_keeps_its_things_and_loses_its_framing_and_pose():
    said = "a photo of zwx man with umbrella, on the beach, doing yoga, tree pose, slight smile"
    ids = torch.from_numpy(token_ids([said] * 64)).long()
    made = {text(row) for row in reframed(ids, torch.Generator().manual_seed(0))}
    rest = "zwx man with umbrella , on the beach , , , slight smile"
    openings = ("close up portrait", "portrait", "half body photo", "full body photo")
    assert made == {f"{one} of {rest}{end}" for one in openings for end in ("", " , standing")}


def test_captions_beside_skeletons_are_often_empty_and_an_empty_one_stays_empty():
    ids = torch.from_numpy(token_ids(["portrait of a man, waving", ""] * 500)).long()
    made = beside_skeletons(ids, torch.Generator().manual_seed(0))
    assert torch.equal(made[1::2], ids[1::2])
    words = [text(row) for row in made[::2]]
    assert 0.34 < sum(not w for w in words) / 500 < 0.46
    assert 0.24 < sum(w == "portrait of a man , waving" for w in words) / 500 < 0.36


def test_the_longest_caption_is_reframed_within_its_length():
    ids = torch.from_numpy(token_ids(["umbrella hat " * 60])).long()
    made = reframed(ids, torch.Generator().manual_seed(0))
    assert made.shape == ids.shape and int(made[0, -1]) == int(ids[0, -1])


def text(ids):
    """The words of token ids."""
    words = {number: word.removesuffix("</w>") for word, number in vocabulary()[0].items()}
    return " ".join(words[int(i)] for i in ids[1:] if i != ids[-1])
