import pytest
from likeness.comparison.plan_file import find_plan
from likeness.demo import experiment, weights

STUDY_ROWS = ["base", "tiny", "standard", "lora-r1", "lora-r4", "lora-r8"]


@pytest.fixture
def untrained(monkeypatch, tmp_path):
    """A checkout without the miniature's weights."""
    monkeypatch.setattr(
        weights, "available", lambda folder=tmp_path: (folder / "digests.json").is_file()
    )
    return tmp_path / "output"


def test_without_weights_the_whole_experiment_is_asked_for_in_few_steps(untrained, capsys):
    given = experiment.build_parser().parse_args(experiment._arguments(untrained))
    assert "coloured noise" in capsys.readouterr().out
    plan = find_plan(given.plan)
    assert [row.name for row in plan.rows] == STUDY_ROWS
    assert [row.name for row in plan.rows if row.with_pose == "both"] == ["standard", "lora-r1"]
    assert (plan.draws, plan.picture.width, plan.picture.height) == (1, 96, 128)
    assert "schedule.steps=20" in given.set
    assert given.base.is_file() and given.controlnet.is_file()
    assert len(list(given.photos.glob("*.png"))) == 15


def test_random_weights_are_written_once(untrained):
    experiment._arguments(untrained)
    before = {path: path.stat().st_mtime_ns for path in (untrained / "models").rglob("*.*")}
    experiment._arguments(untrained)
    assert before == {path: path.stat().st_mtime_ns for path in before}
