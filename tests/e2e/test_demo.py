"""The demo from its files to its report, with two steps a training and one an image."""

import json

from likeness.comparison.plan_file import find_plan
from likeness.demo import experiment

ROWS = [
    "base",
    "tiny",
    "standard",
    "standard_cnet",
    "lora-r1",
    "lora-r1_cnet",
    "lora-r4",
    "lora-r8",
]


def test_the_whole_experiment_comes_to_its_sheet_scores_and_report(tmp_path, capsys):
    plan = json.loads(find_plan(experiment.PLAN).to_json())
    plan["image"]["steps"] = 1
    (tmp_path / "small.json").write_text(json.dumps(plan))
    arguments = experiment._arguments(tmp_path / "output")
    arguments[arguments.index(experiment.PLAN)] = str(tmp_path / "small.json")
    arguments += ["--set", "schedule.steps=2", "--set", "prior.count=4", "--set", "prior.steps=1"]
    given = experiment.build_parser().parse_args(arguments)
    assert given.run(given) == 0
    (place,) = (tmp_path / "output" / "likeness" / "comparisons").iterdir()
    scores = json.loads((place / "scores.json").read_text(encoding="utf-8"))
    assert {measure["key"] for measure in scores["measures"]} >= {"subject.judge", "prompt.judge"}
    assert all(len(rows) == len(ROWS) for rows in scores["rows"].values())
    assert (place / "report.html").stat().st_size > 100_000 and list(place.glob("sheet*.png"))
    drawn = {path.parent.parent.name for path in place.glob("*/96x128/*.*")}
    assert drawn == set(ROWS)
    said = capsys.readouterr().out
    assert "report" in said and "sheet" in said
