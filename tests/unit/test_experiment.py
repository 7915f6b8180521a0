import pytest
from likeness.comparison.plan_file import find_plan
from likeness.demo import experiment, weights
from likeness.trainers.errors import BaseModelError

STUDY_ROWS = ["base", "tiny", "standard", "lora-r1", "lora-r4", "lora-r8"]


def test_the_demo_asks_for_the_whole_experiment(tmp_path):
    given = experiment.build_parser().parse_args(experiment._arguments(tmp_path))
    plan = find_plan(given.plan)
    assert [row.name for row in plan.rows] == STUDY_ROWS
    assert [row.name for row in plan.rows if row.with_pose == "both"] == ["standard", "lora-r1"]
    assert (plan.image.width, plan.image.height) == (96, 128)
    assert given.base.is_file() and given.controlnet.is_file()
    assert len(list(given.photos.glob("*.png"))) == 15


def test_without_weights_the_demo_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(weights.find, "__defaults__", (tmp_path,))
    with pytest.raises(BaseModelError, match="demo pretrain"):
        experiment._arguments(tmp_path / "output")
