import json
from types import SimpleNamespace

import numpy as np
import pytest
from diffusers import ControlNetModel
from likeness.comparison.keypoints import yoga_poses
from likeness.demo import measures, quality, quality_table
from likeness.demo.judge import Judge, Reference
from likeness.demo.judge_networks import PatchJudge
from likeness.demo.measures import Measures, Words
from likeness.demo.random_model import write_random_model
from likeness.trainers.base_model import load_base
from likeness.trainers.errors import RecipeError

SMALL = measures.Canvas(32, 32, steps=1)


def test_the_words_are_the_studys():
    prompts = Words().study()
    assert list(prompts) == ["sunglasses", "girlfriend", "umbrella", "kitchen", "forest", "street"]
    assert prompts["umbrella"] == "a photo of a man sks with umbrella"
    assert Words("ohwx", "woman").study()["kitchen"].startswith("close up portrait of ohwx woman")


def test_keypoints_keep_places_and_mark_what_is_unseen():
    pose = yoga_poses()[0]
    points = measures.keypoints(pose)
    assert points.shape == (18, 3)
    assert points[0, :2] == pytest.approx(pose.people[0][0])
    assert set(points[:, 2]) <= {0.0, 1.0}


def test_hints_are_skeletons_on_black():
    hints = measures.pose_hints(yoga_poses()[:2], 48, 64)
    assert hints.shape == (2, 3, 64, 48)
    assert hints.min() == 0 and 0.9 < hints.max() <= 1
    assert (hints.amax(1) == 0).float().mean() > 0.5


@pytest.fixture
def model(tmp_path):
    return load_base(write_random_model(tmp_path / "tiny.safetensors"))


def test_measures_repeat_and_are_numbers_but_joint_errors_without_a_controlnet(model):
    judge = Judge(PatchJudge(width=32, layers=1).eval(), "patches")
    subject = Reference(np.ones(64) / 8, chance=0.0, same=1.0)
    controlnet = ControlNetModel.from_unet(model.unet).eval()
    numbers, images = measures.measure(
        model, judge, subject, controlnet=controlnet, draws=1, canvas=SMALL
    )
    assert images.shape == (6, 32, 32, 3)
    assert np.isfinite(list(numbers.to_dict().values())).all()
    again, _ = measures.measure(model, judge, subject, draws=1, canvas=SMALL)
    assert again.to_dict() == numbers.to_dict() | {"joints": None, "joints_controlled": None}
    # A ControlNet that has learned nothing changes nothing.
    assert numbers.joints == pytest.approx(numbers.joints_controlled, abs=1e-6)


# The study over people.


@pytest.mark.parametrize(
    "row", ["huge", "lora-r4-no-priors", "", "-no-prior", "standard-cut-2", "lora-r8-cut-"]
)
def test_a_wrong_row_is_named_with_the_right_ones(row):
    with pytest.raises(RecipeError, match="choose from base, named, tiny"):
        quality._recipe(row, [])


def test_a_row_without_prior_has_no_class_images():
    assert quality._recipe("standard", []).prior is not None
    assert quality._recipe("standard-no-prior", ["schedule.steps=7"]).prior is None


def test_a_row_that_is_cut_is_the_training_of_its_rank_resized(tmp_path, monkeypatch):
    assert quality._recipe("lora-r8-cut-2", []) == quality._recipe("lora-r8", [])
    assert quality._recipe("lora-r8-no-prior-cut-2", []).prior is None
    study = object.__new__(quality._Study)
    study._options, study._base = quality.Options(out=tmp_path), tmp_path / "base.safetensors"
    result = SimpleNamespace(adapter=tmp_path / "a.safetensors", seconds={"train": 2.0})
    monkeypatch.setattr(quality._Study, "_photos", lambda self, number: tmp_path)
    monkeypatch.setattr(quality, "_train", lambda recipe, places: result)
    resized = []
    monkeypatch.setattr(quality, "resize_file", lambda *given: resized.append(given))
    to = tmp_path / "a-cut-2.safetensors"
    assert study._adapter(5000, 0, "lora-r8-cut-2", 200) == (to, 2.0)
    assert resized == [(result.adapter, 2, to)]
    assert study._adapter(5000, 0, "lora-r8", 200) == (result.adapter, 2.0)


def test_a_person_is_always_the_same_and_not_another():
    assert quality.person(5000) == quality.person(5000)
    assert quality.person(5000) != quality.person(5001)


def test_people_of_a_sweep_and_other_weights_are_never_in_the_results(tmp_path):
    options = quality.Options(out=tmp_path, people=4)
    of = {"row": "base", "settings": [], **quality._digests(options)}
    of["recipe"] = quality._recipe_digest("base", [])
    lines = [{"person": number, **of} for number in (5001, 7000, 5004)]
    lines += [{"person": 5002, **of, name: "another"} for name in ("base", "controlnet", "recipe")]
    (tmp_path / quality.LINES).write_text("\n".join(map(json.dumps, lines)))
    assert [line["person"] for line in quality.asked_lines(options)] == [5001]


def test_damaged_or_missing_lines(tmp_path):
    assert list(quality.read_lines(tmp_path / "none.jsonl")) == []


def test_intervals_are_over_people_not_over_images():
    same = {person: [0.5] * 100 for person in range(4)}
    assert quality_table.interval(same) == (0.5, (0.5, 0.5))
    # People who differ: more seeds of each make the interval no narrower.
    few = quality_table.interval({0: [0.0], 1: [1.0], 2: [0.0], 3: [1.0]})
    many = quality_table.interval({0: [0.0] * 50, 1: [1.0] * 50, 2: [0.0] * 50, 3: [1.0] * 50})
    assert few == many and few[0] == 0.5 and few[1] == pytest.approx((0.0, 1.0))
    assert quality_table.interval({0: [0.0], 1: [1.0], 2: [1.0]})[1] is None, "too few to say"
    with pytest.raises(ValueError, match="no numbers"):
        quality_table.interval({})


def test_a_table_has_a_row_for_each_model_and_a_dash_for_what_is_missing():
    numbers = Measures(0.5, 0.8, 0.4, 0.1, float("nan"), float("nan")).to_dict()
    lines = [
        {"person": p, "row": row, "steps": 9, "settings": [], "train_seconds": 3, **numbers}
        for row in ("base", "tiny")
        for p in range(4)
    ]  # fmt: skip
    rows = quality_table.table(lines).splitlines()
    assert len(rows) == 4 and rows[2].startswith("| base | 9 |")
    assert "0.50 (0.50 to 0.50)" in rows[2] and rows[2].count("–") == 2


def test_two_processes_that_draw_the_same_person_both_go_on(tmp_path, monkeypatch):
    study = object.__new__(quality._Study)
    study._options = quality.Options(out=tmp_path)

    def write(folder, **_):
        for each in (folder, tmp_path / "people" / "5000"):  # the other one is done meanwhile
            each.mkdir(parents=True)
            (each / "01.png").write_bytes(b"drawing")

    monkeypatch.setattr(quality, "write_subject", write)
    assert [path.name for path in study._photos(5000).iterdir()] == ["01.png"]
    assert [path.name for path in (tmp_path / "people").iterdir()] == ["5000"]


def test_a_line_is_measured_once_and_again_with_other_weights(tmp_path, monkeypatch):
    numbers = Measures(0.5, 0.8, 0.4, 0.1, 0.3, 0.2)
    monkeypatch.setattr(quality._Study, "_numbers", lambda *_: numbers)
    options = quality.Options(tmp_path, rows=("base",), people=2, seeds=1, say=lambda text: None)
    for _ in range(2):
        quality.run(options)
        assert len(list(quality.read_lines(tmp_path / quality.LINES))) == 2
    find = quality.weights.find
    found = {name: find(name) for name in quality.weights.FILES}
    monkeypatch.setattr(quality.weights, "find", lambda name, folder: found[name])
    monkeypatch.setattr(quality.weights, "digest", lambda path: "f" * 64)
    quality.run(options)
    assert len(list(quality.read_lines(tmp_path / quality.LINES))) == 4


def test_each_number_of_steps_is_a_training_of_its_own(tmp_path, monkeypatch):
    """A rate that falls along a course ends with the steps."""
    asked = []

    def train(recipe, places):
        asked.append((recipe.schedule.steps, recipe.continues))
        return SimpleNamespace(adapter=None, seconds={"train": 1.0})

    monkeypatch.setattr(quality, "_train", train)
    monkeypatch.setattr(quality._Study, "_photos", lambda self, number: tmp_path)
    monkeypatch.setattr(quality._Study, "_numbers", lambda *_: Measures(*[0.0] * 6))
    quality.run(quality.Options(tmp_path, rows=("standard",), people=1, seeds=1, steps=(50, 100)))
    assert asked == [(50, None), (100, None)]
