import json
import math
from itertools import count

import numpy as np
import pytest
from likeness.comparison.estimates import Estimate, estimate
from likeness.comparison.keypoints import yoga_poses
from likeness.comparison.matrix import Variant, plan
from likeness.comparison.prompts import bundled_set, prompt_set_from_text
from likeness.comparison.score_table import format_cell_scores
from likeness.comparison.scores import score
from PIL import Image

BASE, TAUGHT = Variant(name="base"), Variant(name="r4", adapter="4" * 64)
PROMPTS = "beach = a {token} {class} on the beach\nrain = a {token} {class} in the rain"


class Red:
    """The share of red in the middle of an image; an image without any red has no value."""

    key, name, digest, identity_only = "red", "red", "d" * 64, False

    def encode(self, images):
        reds = [image.getpixel((4, 4))[0] / 100 for image in images]
        return np.array([[red or np.nan] for red in reds], np.float32)

    def likeness(self, a, b):
        return 1 - np.abs(a.astype(float) - b.astype(float).T)


class Reader(Red):
    """Also reads prompts and poses."""

    def prompt_match(self, vectors, prompts):
        return vectors[:, 0] * [len(prompt) for prompt in prompts]

    def pose_error(self, vectors, poses):
        return np.array([len(pose.people) / 10 for pose in poses])


@pytest.fixture
def paint(tmp_path):
    """Image files with these parts of red, in hundredths."""

    numbers = count()

    def make(*reds):
        paths = []
        for red in reds:
            paths.append(tmp_path / f"{next(numbers)}.png")
            if red is not None:
                Image.new("RGB", (8, 8), (red, 0, 0)).save(paths[-1])
        return paths

    return make


def two_by_four():
    """Base and an adapter; two prompts of the subject and the same two of the class."""
    prompts = prompt_set_from_text(PROMPTS).with_class().filled("sks", "dog")
    return plan([BASE, TAUGHT], prompts)


def scored(paint, *reds, photographs=(50, 60), encoder=None, the_plan=None):
    return score(the_plan or two_by_four(), paint(*reds), paint(*photographs), [encoder or Red()])


def values(scores, kind):
    return [None if v is None else round(v, 4) for v in scores.cells[f"{kind}.red"]]


def test_each_image_is_compared_with_all_photographs_and_the_nearest(paint):
    scores = scored(paint, 10, 20, 30, 40, 50, 60, 70, 80)
    # |10 - 50| and |10 - 60|, in hundredths: 0.6 and 0.5
    assert values(scores, "subject") == [0.55, 0.65, None, None, 0.95, 0.95, None, None]
    assert values(scores, "nearest") == [0.6, 0.7, None, None, 1.0, 1.0, None, None]


def test_the_class_is_compared_with_the_base_of_the_same_column(paint):
    scores = scored(paint, 10, 20, 30, 40, 50, 60, 45, 30)
    assert values(scores, "drift") == [None] * 6 + [0.15, 0.1]
    # likeness to the photographs 0.75 -> 0.9 and 0.85 -> 0.75
    assert values(scores, "leak") == [None] * 6 + [0.15, -0.1]
    assert scores.rows["drift.red"][0] is None
    assert scores.rows["drift.red"][1].mean == pytest.approx(0.125)


def test_photographs_among_themselves_are_the_scale(paint):
    scores = scored(paint, *range(10, 90, 10), photographs=(50, 60, 90))
    # pairs are 0.1, 0.3 and 0.4 apart
    assert scores.photographs["subject.red"].mean == pytest.approx(1 - 0.8 / 3)
    assert scores.photographs["nearest.red"].mean == pytest.approx(1 - (0.1 + 0.1 + 0.3) / 3)


def test_prompts_are_judged_without_the_token(paint):
    scores = scored(paint, *range(10, 90, 10), encoder=Reader())
    beach, rain = len("a dog on the beach"), len("a dog in the rain")
    assert values(scores, "prompt")[:3] == [round(0.1 * beach, 4), round(0.2 * rain, 4), None]


def test_a_score_of_0_is_a_score(paint):
    scores = scored(paint, 160, *range(20, 90, 10), photographs=(60,))
    assert format_cell_scores(scores, 0) == "subject 0.00"
    assert format_cell_scores(scores, 2) == "", "the class has no subject match"


def test_draws_of_a_prompt_are_compared_with_each_other(paint):
    prompts = prompt_set_from_text(PROMPTS).filled("sks", "dog")
    the_plan = plan([TAUGHT], prompts, draws=3)
    scores = scored(paint, 10, 20, 40, 50, 50, 50, the_plan=the_plan)
    assert values(scores, "diversity") == [0.2, 0.15, 0.25, 0, 0, 0]
    assert scores.rows["diversity.red"][0].mean == pytest.approx(0.1)
    assert scores.rows["subject.red"][0].low is None, "two prompts, though of six images"


def test_an_encoder_of_faces_says_nothing_of_whole_images(paint):
    encoder = Red()
    encoder.identity_only = True
    prompts = prompt_set_from_text(PROMPTS).with_class().filled("sks", "dog")
    the_plan = plan([BASE, TAUGHT], prompts, draws=2)
    scores = scored(paint, *range(10, 90, 5), encoder=encoder, the_plan=the_plan)
    assert {measure.key.split(".")[0] for measure in scores.measures} == {
        "subject", "nearest", "leak",
    }  # fmt: skip


def test_poses_are_judged_where_one_was_asked_for(paint):
    prompts = prompt_set_from_text("a man")
    the_plan = plan([TAUGHT], prompts, yoga_poses(), with_pose="both")
    scores = scored(paint, 10, 20, encoder=Reader(), the_plan=the_plan)
    assert values(scores, "pose") == [None, 0.1]


def test_images_without_a_value_are_counted_and_not_averaged(paint):
    scores = scored(paint, 10, 0, 30, 40, 50, None, 70, 80)
    assert values(scores, "subject") == [0.55, None, None, None, 0.95, None, None, None]
    row = scores.rows["subject.red"][1]
    assert (row.mean, row.count, row.asked) == (pytest.approx(0.95), 1, 2)
    assert row.text() == "0.950 1 of 2"


def test_what_cannot_be_measured_is_said_and_not_shown(paint):
    bare = plan([TAUGHT], prompt_set_from_text("a man"))
    scores = score(bare, paint(10), [], [Red()], notes=["CLIP is left out: install it."])
    assert scores.measures == () and scores.rows == {}
    text = "\n".join(scores.notes)
    for part in ("CLIP is", "Prompt match", "Subject match", "Diversity", "Class drift"):
        assert part in text
    no_base = plan([TAUGHT], prompt_set_from_text(PROMPTS).with_class().filled("sks", "dog"))
    scores = scored(paint, 10, 20, 30, 40, the_plan=no_base)
    assert any("needs a row of the base" in note for note in scores.notes)


def test_photographs_without_a_face_leave_the_face_out(paint):
    scores = scored(paint, *range(10, 90, 10), photographs=(0, 0))
    assert not any(m.key.startswith(("subject", "nearest", "leak")) for m in scores.measures)
    assert any("finds nothing to compare" in note for note in scores.notes)


def test_equal_noise_in_posed_rows_is_compared_with_the_posed_base(paint):
    prompts = prompt_set_from_text("a {class}").filled("sks", "dog")
    the_plan = plan([BASE, TAUGHT], prompts, yoga_poses(), with_pose="both")
    scores = scored(paint, 10, 50, 30, 80, the_plan=the_plan)
    assert values(scores, "drift") == [None, None, 0.2, 0.3]


def test_the_json_names_rows_and_columns_and_has_no_nan(paint):
    scores = scored(paint, 10, 0, 30, 40, 50, 60, 70, 80)
    data = json.loads(scores.to_json(two_by_four()), parse_constant=pytest.fail)
    assert data["row_names"] == ["base", "r4"] and len(data["column_names"]) == 4
    assert data["cells"]["subject.red"][1] is None


# Intervals


@pytest.mark.parametrize("prompts", [6, 30])
def test_an_interval_covers_the_mean_as_often_as_it_says(prompts):
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        found = estimate(rng.normal(0.5, 0.1, prompts), np.arange(prompts))
        hits += found.low <= 0.5 <= found.high
    assert 186 <= hits <= 198  # the usual percentiles have 180 of six, and 184 of thirty


def test_images_of_one_prompt_count_as_one():
    values = np.repeat([0.1, 0.4, 0.6, 0.9], 10)
    independent = estimate(values, np.arange(40))
    together = estimate(values, np.repeat([0, 1, 2, 3], 10))
    assert independent.mean == pytest.approx(together.mean)
    assert together.high - together.low > 2 * (independent.high - independent.low)


def test_the_same_values_have_the_same_interval():
    values = np.random.default_rng(2).random(8)
    assert estimate(values, np.arange(8)) == estimate(values, np.arange(8))


def test_one_prompt_alone_has_no_interval_and_none_no_estimate():
    assert estimate(np.array([0.5]), np.array([0])) == Estimate(0.5, None, None, 1, 1)
    assert estimate(np.array([math.nan]), np.array([0])) is None
    draws = estimate(np.array([0.1, 0.2, 0.4, 0.9]), np.zeros(4, int))
    assert draws.low < draws.mean < draws.high
    pairs = estimate(np.array([0.1, 0.2, 0.4, 0.9]), np.zeros(4, int), independent=False)
    assert pairs == Estimate(draws.mean, None, None, 4, 4)


def test_of_few_prompts_there_is_no_interval():
    for few in (2, 3):
        assert estimate(np.arange(few) / 4, np.arange(few)).low is None


def test_an_estimate_reads_as_mean_and_interval():
    assert Estimate(0.71234, 0.65, 0.7777, 6, 6).text() == "0.712 [0.650, 0.778]"


# What a prompt set says of its prompts


def test_a_filled_set_knows_its_prompts_without_the_token():
    study = bundled_set("study").filled("sks", "man")
    assert study.prompts[0].plain == "a photo of a man in sunglasses"
    assert not any(prompt.of_class for prompt in study.prompts)
    assert all(prompt.of_class for prompt in bundled_set("study").filled("", "man").prompts)
    name = prompt_set_from_text("a photo of somebody").filled("sks", "man").prompts[0]
    assert name.plain is None and not name.of_class


def test_a_set_with_its_class_has_each_prompt_again_without_the_token():
    both = bundled_set("study").with_class().filled("sks", "man")
    assert [prompt.key for prompt in both.prompts[6:8]] == ["sunglasses-class", "girlfriend-class"]
    assert [prompt.of_class for prompt in both.prompts] == [False] * 6 + [True] * 6
    assert both.prompts[6].text == both.prompts[0].plain
    assert both.filled("sks", "man") == both
