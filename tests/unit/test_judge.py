from dataclasses import replace

import numpy as np
import pytest
import torch
from likeness.demo import judge as judges
from likeness.demo import weights
from likeness.demo.facts import (
    QUESTIONS,
    TRAITS,
    UNKNOWN,
    asked,
    asked_of_scene,
    rejected,
    trait_values,
    truth,
)
from likeness.demo.judge_networks import ARCHITECTURES, JudgeOutput, heads_of
from likeness.demo.scene import Identity, Scene, Traits
from likeness.trainers.errors import BaseModelError

KITCHEN = (
    "close up portrait of sks man face, in the kitchen, standing, 4K, raw, hrd, hd, high quality, "
    "realism, sharp focus"
)


def opinion(n=1, **said):
    """An opinion that is sure of some answers and of no reject, and knows nothing else."""
    answers = {question: torch.zeros(n, len(choices)) for question, choices in QUESTIONS.items()}
    for question, answer in {"kind": "drawing", **said}.items():
        answers[question][:, QUESTIONS[question].index(answer)] = 9.0
    identity = torch.nn.functional.normalize(torch.ones(n, 64), dim=1)
    return JudgeOutput(
        answers, torch.zeros(n, 26), identity, torch.full((n, 18, 2), 0.5), torch.zeros(n, 18)
    )


# Facts.


def answer_of(facts, question):
    return QUESTIONS[question][facts[list(QUESTIONS).index(question)]]


def test_the_truth_of_a_scene():
    who = Identity(gender="woman", hair_style="bun", shirt_colour="teal")
    scene = Scene(who, "sad", "half", place="beach", things=("hat",), companion=Identity())
    facts = truth(scene)
    wanted = {
        "gender": "woman", "hair_style": "bun", "shirt_colour": "teal", "expression": "sad",
        "framing": "half", "place": "beach", "hat": "yes", "umbrella": "no", "company": "man",
        "flaw": "none", "kind": "drawing",
    }  # fmt: skip
    assert {question: answer_of(facts, question) for question in wanted} == wanted


def test_what_is_not_to_be_seen_is_unknown():
    scene = Scene(Identity(hair_style="bald", glasses=True), things=("sunglasses",))
    facts = dict(zip(QUESTIONS, truth(scene), strict=True))
    unseen = {question for question, answer in facts.items() if answer == UNKNOWN}
    assert unseen == {"hair_colour", "eyes", "glasses"}
    assert set(rejected()[:-1]) == {UNKNOWN}


def test_traits_keep_their_order():
    values = trait_values(Identity(traits=Traits(jaw=0.25, trousers=-1)))
    assert values[TRAITS.index("jaw")] == 0.25 and values[-1] == -1 and len(values) == 26


def test_the_studys_prompts_ask_for_what_they_name():
    assert asked("a photo of a man sks in sunglasses") == {
        "gender": ("man",), "sunglasses": ("yes",),
    }  # fmt: skip
    assert asked("a photo of a man sks with girlfriend")["company"] == ("woman",)
    assert asked_of_scene("a photo of a man sks with girlfriend") == {"company": ("man", "woman")}
    assert asked_of_scene("portrait of a man with red hair, in the kitchen") == {
        "framing": ("close-up", "portrait"), "place": ("kitchen",),
    }  # fmt: skip
    assert asked(KITCHEN) == {
        "framing": ("close-up",), "gender": ("man",), "place": ("kitchen",),
    }  # fmt: skip
    night = asked("portrait of sks man face, on the street, lights, midnight, NY, standing")
    assert night["place"] == ("street",) and night["framing"] == ("close-up", "portrait")


def test_two_words_go_before_one():
    assert asked("a woman with red hair in a green shirt, slight smile") == {
        "gender": ("woman",), "hair_colour": ("red",), "shirt_colour": ("green",),
        "expression": ("slight smile",),
    }  # fmt: skip


# Networks.


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [(128, 128), (128, 96), (64, 64), (200, 150)])
def test_a_judge_looks_at_any_size(architecture, size):
    network = ARCHITECTURES[architecture]().eval()
    with torch.no_grad():
        seen = network(torch.rand(2, 3, *size) * 2 - 1)
    assert {q: len(a[0]) for q, a in seen.answers.items()} == {
        q: len(a) for q, a in QUESTIONS.items()
    }
    assert seen.joints.shape == (2, 18, 2) and seen.visible.shape == (2, 18)
    assert bool(((seen.joints > 0) & (seen.joints < 1)).all())
    assert torch.allclose(seen.identity.norm(dim=1), torch.ones(2), atol=1e-5)
    assert seen.traits.shape == (2, 26)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_judge_says_the_same(tmp_path, architecture):
    network = ARCHITECTURES[architecture]().half().float().eval()
    path = tmp_path / "judge.safetensors"
    judges.save_judge(path, network)
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    before, after = judges.Judge(network, architecture)(images), judges.load_judge(path)(images)
    assert torch.equal(before.identity, after.identity)
    assert judges.load_judge(path).architecture == architecture


def test_a_judge_of_other_questions_or_none_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "judge.safetensors"
    with monkeypatch.context() as patch:
        patch.setitem(judges.QUESTIONS, "skin", ("a", "b", "c", "d", "e"))
        judges.save_judge(path, ARCHITECTURES["patches"]())
    with pytest.raises(BaseModelError, match="other questions"):
        judges.load_judge(path)
    path.write_bytes(b"nothing")
    with pytest.raises(BaseModelError, match="not a judge"):
        judges.load_judge(path)


# Scores.


def test_prompt_match_is_the_share_of_what_was_asked():
    seen = opinion(framing="close-up", gender="man", place="forest")
    assert judges.prompt_match(seen, KITCHEN) == pytest.approx([2 / 3])
    assert judges.prompt_match(seen, "portrait of a man, in the forest") == pytest.approx([1.0])


def test_a_rejected_image_matches_nothing():
    seen = opinion(kind="reject", gender="man", place="kitchen", framing="close-up")
    assert judges.prompt_match(seen, KITCHEN) == [0.0]
    nobody = judges.Reference(np.full(64, 0.125), chance=0.2, same=0.9)
    assert judges.identity_match(seen, nobody) == [0.0]


def test_a_prompt_without_facts_has_no_score():
    with pytest.raises(ValueError, match="knows nothing"):
        judges.prompt_match(opinion(), "4K, raw")


def test_pose_error_is_in_image_heights():
    keypoints = np.zeros((18, 3))
    keypoints[4] = (0.5, 0.8, 1)
    keypoints[7] = (0.9, 0.5, 1)
    error = judges.pose_error(opinion(2), keypoints, aspect=0.75)
    assert error == pytest.approx([(0.3 + 0.4 * 0.75) / 2] * 2)
    assert np.isnan(judges.pose_error(opinion(), np.zeros((18, 3)), 1.0)).all()


def test_identity_match_is_0_by_chance_and_1_for_the_same():
    seen = opinion(3)
    seen.identity[:] = 0
    for row, cosine in enumerate((0.2, 0.8, 0.5)):
        seen.identity[row, :2] = torch.tensor((cosine, (1 - cosine**2) ** 0.5))
    who = judges.Reference(np.eye(64)[0], chance=0.2, same=0.8)
    assert judges.identity_match(seen, who) == pytest.approx([0.0, 1.0, 0.5], abs=1e-6)


def test_a_reference_is_calibrated_on_drawings():
    pytest.importorskip("aggdraw", reason="draws")
    from likeness.demo import world

    def by_colour(images):  # a judge that sees the mean colour alone
        mean = torch.from_numpy(images.astype(np.float32)).mean((1, 2))
        identity = torch.nn.functional.pad(mean - mean.mean(1, keepdim=True) + 1, (0, 61))
        return replace(opinion(len(images)), identity=torch.nn.functional.normalize(identity))

    who = Identity(shirt_colour="red", skin="fair", hair_colour="red", hair_style="long")
    photos = np.stack(
        [world.draw(Scene(who, framing="close-up", variation=k), 48, 64) for k in (1, 2)]
    )
    strangers = np.stack([world.draw(Scene(place="forest", variation=k), 48, 64) for k in (1, 2)])
    found = judges.reference(by_colour, photos, strangers, photos)
    assert found.same > found.chance + 0.05
    assert judges.identity_match(by_colour(photos), found).mean() == pytest.approx(1, abs=0.05)
    assert judges.identity_match(by_colour(strangers), found).mean() == pytest.approx(0, abs=0.05)
    with pytest.raises(ValueError, match="cannot tell"):
        judges.reference(by_colour, photos, photos, photos)


@pytest.mark.parametrize("width", [96, 128])
def test_heads_are_cut_around_the_nose_and_as_large_as_the_neck_is_away(width):
    images = torch.zeros(2, 3, 128, width)
    joints = torch.full((2, 18, 2), 0.5)
    for row, (y, away) in enumerate([(0.4, 0.1), (0.5, 0.2)]):
        for joint, at in enumerate((y, y + away)):
            joints[row, joint] = torch.tensor((0.4, at))
            x, y = round(0.4 * width), round(at * 128)
            images[row, :, y - 1 : y + 2, x - 1 : x + 2] = 1
    heads = heads_of(images, joints)
    assert heads.shape == (2, 3, 64, 64)
    for head in heads:
        nose = (head[0] > 0.5).nonzero().float()
        assert (nose[:, 1] - 32).abs().max() < 6
        top, bottom = nose[:, 0].min(), nose[:, 0].max()
        assert abs(top - 39) < 5 and abs(bottom - 60) < 5  # nose and neck, at one size


@pytest.mark.parametrize("name", [weights.JUDGE, weights.SECOND_JUDGE])
def test_a_bundled_judge_had_other_names_than_its_network(name):
    if not weights.available():
        pytest.skip("the repository has no trained weights")
    assert judges.load_judge(weights.find(name))(np.zeros((1, 128, 96, 3), np.uint8))
