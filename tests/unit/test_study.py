"""The files of a comparison that is drawn again with other rows or pictures."""

import pytest
from likeness.comparison.matrix import Variant, plan
from likeness.comparison.prompts import prompt_set_from_text
from likeness.comparison.study import newest_sheet, write_study
from PIL import Image


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.new("RGB", (64, 64), (80 * number, 0, 0)).save(path)
    return paths


def written(tmp_path, names, pictures):
    rows = [Variant(name=name) for name in names]
    prompts = prompt_set_from_text("a = a dog")
    return write_study(tmp_path, "mine", plan(rows, prompts), pictures, "png", {})[0]


def test_scores_and_report_of_other_pictures_go_away(tmp_path, pictures):
    study = written(tmp_path, ["base", "one"], pictures[:2])
    files = [study.folder / name for name in ("scores.json", "report.html")]
    for file in files:
        file.write_text("of the first two")
    assert written(tmp_path, ["base", "one"], pictures[:2]).sheet == study.sheet
    assert all(file.is_file() for file in files), "nothing has changed"
    other = written(tmp_path, ["base", "one"], pictures[1:])
    assert newest_sheet(study.folder) == other.sheet != study.sheet
    assert not any(file.exists() for file in files)


def test_scores_and_report_of_other_rows_go_away(tmp_path, pictures):
    study = written(tmp_path, ["base", "one"], pictures[:2])
    (study.folder / "scores.json").write_text("of the first two")
    written(tmp_path, ["base", "two"], pictures[:2])
    assert not (study.folder / "scores.json").exists()
