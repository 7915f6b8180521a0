"""The files of a comparison that is drawn again with other rows or images."""

import json

import pytest
from likeness.comparison import study as comparison_study
from likeness.comparison.matrix import Variant, plan, plan_from_data
from likeness.comparison.prompts import prompt_set_from_text
from likeness.comparison.study import keep_newest, newest_sheet, write_partial_study, write_study
from PIL import Image


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.new("RGB", (64, 64), (80 * number, 0, 0)).save(path)
    return paths


def written(tmp_path, names, images):
    rows = [Variant(name=name) for name in names]
    prompts = prompt_set_from_text("a = a dog")
    return write_study(tmp_path, "mine", plan(rows, prompts), images, "png", {})[0]


def test_scores_and_report_of_other_images_go_away(tmp_path, images):
    study = written(tmp_path, ["base", "one"], images[:2])
    files = [study.folder / name for name in ("scores.json", "report.html")]
    for file in files:
        file.write_text("of the first two")
    assert written(tmp_path, ["base", "one"], images[:2]).sheet == study.sheet
    assert all(file.is_file() for file in files), "nothing has changed"
    other = written(tmp_path, ["base", "one"], images[1:])
    assert newest_sheet(study.folder) == other.sheet != study.sheet
    assert not any(file.exists() for file in files)


def test_scores_and_report_of_other_rows_go_away(tmp_path, images):
    study = written(tmp_path, ["base", "one"], images[:2])
    (study.folder / "scores.json").write_text("of the first two")
    written(tmp_path, ["base", "two"], images[:2])
    assert not (study.folder / "scores.json").exists()


def test_single_images_of_the_former_plan_go_away_and_others_stay(tmp_path, images):
    study = written(tmp_path, ["base", "one"], images[:2])
    own = study.folder / "one" / "notes.txt"
    own.write_text("of the user")
    written(tmp_path, ["base", "two"], [images[0], tmp_path / "not drawn yet.png"])
    assert {p.relative_to(study.folder).as_posix() for p in study.folder.rglob("*/*")} == {
        "base/768x1024",
        "base/768x1024/a.png",
        "one/notes.txt",
    }


def test_a_cell_that_is_not_drawn_yet_has_no_image_of_other_settings(tmp_path, images):
    study = written(tmp_path, ["base", "one"], images[:2])
    written(tmp_path, ["base", "one"], [tmp_path / "none.png", images[1]])
    assert not (study.folder / "base").exists()
    assert (study.folder / "one" / "768x1024" / "a.png").is_file()


def test_scores_of_a_cell_that_was_drawn_again_go_away(tmp_path, images):
    study = written(tmp_path, ["base", "one"], images[:2])
    (study.folder / "scores.json").write_text("of the first two")
    Image.new("RGB", (64, 64), "white").save(images[1])  # of the same name
    written(tmp_path, ["base", "one"], images[:2])
    assert not (study.folder / "scores.json").exists()


def test_a_cancelled_comparison_took_the_report_of_the_one_before(tmp_path, images):
    study = written(tmp_path, ["base", "one"], images[:2])
    for name in ("scores.json", "report.html"):
        (study.folder / name).write_text("of the first two")
    before = {path: path.read_bytes() for path in study.folder.rglob("*") if path.is_file()}
    rows = plan([Variant(name="new"), Variant(name="two")], prompt_set_from_text("b = a cat"))
    other, sheet = write_partial_study(
        tmp_path, "mine", rows, [images[2], tmp_path / "not yet.png"], {}
    )
    assert other.sheet.is_file() and sheet.size
    assert all(path.read_bytes() == data for path, data in before.items())
    assert newest_sheet(study.folder) == study.sheet, "the one that belongs to the report"
    write_study(tmp_path, "mine", rows, images[1:], "png", {})
    assert not (study.folder / "report.html").exists() and not (study.folder / "base").exists()
    whole, _ = write_study(tmp_path, "mine", rows, [images[2], images[2]], "png", {})
    begun, _ = write_partial_study(tmp_path, "mine", rows, [images[2], images[2]], {})
    assert begun.sheet == whole.sheet == newest_sheet(whole.folder), "a whole one is left alone"


def test_old_sheets_piled_up(tmp_path, images):
    folder = None
    for number in range(12):
        folder = written(tmp_path, [f"r{number}", "one"], images[:2]).folder
    sheets = [*folder.glob("sheet-*.png")]
    assert len(sheets) == 10 and newest_sheet(folder) in sheets
    (folder / "sheet.txt").write_text("of the user")
    keep_newest(folder, "sheet-*.png")
    assert len([*folder.glob("sheet*")]) == 11


def test_a_plan_that_a_graph_draws_says_only_what_it_was_given():
    image, prompts = {"width": 64, "height": 64}, prompt_set_from_text("a = a dog")
    given = plan_from_data({"variants": ({"name": "x"},), "prompts": prompts, "image": image})
    text = given.to_json(given=True)
    assert json.loads(text)["image"] == image and "guidance" not in text
    assert json.loads(text)["version"] == 1
    assert plan_from_data(json.loads(text)) == given
    assert json.loads(given.to_json())["image"]["guidance"] == 7.5


def test_a_row_whose_name_changes_only_in_case_keeps_its_images(tmp_path, images, monkeypatch):
    removed = []
    monkeypatch.setattr(comparison_study, "_remove", removed.append)
    written(tmp_path, ["Base", "one"], images[:2])
    written(tmp_path, ["base", "two"], images[:2])
    assert {path.parent.parent.name for path in removed if path.suffix == ".png"} == {"one"}


def test_the_plan_of_a_terminals_comparison_goes_when_a_graph_draws_one_of_its_name(
    tmp_path, images
):
    study = written(tmp_path, ["base", "one"], images[:2])
    again = study.folder / comparison_study.RERUN_PLAN_FILE
    again.write_text("{}")
    written(tmp_path, ["base", "one"], images[:2])
    assert again.is_file()
    write_study(tmp_path, "mine", study.plan, images[:2], "png", {}, by_graph=True)
    assert not again.exists()
