"""Rows trained, and images drawn, at the same time."""

import argparse
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from likeness.comparison import parallel, row_training
from likeness.comparison.arguments import drawing_command, rerun_command
from likeness.comparison.cli import add_commands
from likeness.comparison.errors import ComparisonError
from likeness.comparison.parallel import draw_in_processes, run_in_threads
from likeness.comparison.plan_file import plan_file_from_data
from likeness.trainers.errors import RunCancelled
from likeness.trainers.events import Event
from likeness.trainers.presets import preset
from likeness.trainers.run_folder import RunFolder
from tqdm import tqdm


def test_as_many_work_at_the_same_time_as_asked():
    both, most = threading.Barrier(2, timeout=5), []

    def work(name, given, cancelled):
        both.wait()  # breaks unless two are here
        most.append(sum(t.name.startswith("ThreadPool") for t in threading.enumerate()))
        return given * 2

    made = dict(run_in_threads(work, {"a": 1, "b": 2, "c": 3, "d": 4}, 2))
    assert made == {"a": 2, "b": 4, "c": 6, "d": 8}
    assert max(most) == 2


def test_a_failure_cancels_what_works_and_begins_nothing_more():
    begun, told = [], threading.Event()

    def work(name, given, cancelled):
        begun.append(name)
        if name == "bad":
            raise RunCancelled("no")
        while not cancelled():
            told.wait(0.01)

    with pytest.raises(RunCancelled, match="no"):
        list(run_in_threads(work, dict.fromkeys(("long", "bad"), None), 2))
    begun.clear()
    with pytest.raises(RunCancelled):
        list(run_in_threads(work, dict.fromkeys(("bad", "later", "never"), None), 1))
    assert "never" not in begun


BASE = plan_file_from_data({"rows": [{"name": "base"}]})
SCRIPT = """
import json, pathlib, sys
command, plan, folder, cells, file = sys.argv[1:]
assert (command, cells) == ("compare", "--cells")
assert json.loads(pathlib.Path(plan).read_text())["rows"] == [{"name": "base"}]
if folder == "fail":
    sys.exit("the disk is full")
numbers = json.loads(pathlib.Path(file).read_text())
pathlib.Path(folder, f"{numbers[0]}.txt").write_text(str(len(numbers)))
for index in numbers:
    pathlib.Path(folder, f"{index}.png").write_bytes(b"x")
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    monkeypatch.setattr(parallel, "PACKAGE", path)


def test_what_is_missing_is_dealt_out_to_the_processes(script, tmp_path):
    images = [tmp_path / f"{index}.png" for index in range(8)]
    missing = [1, 3, 5, 7]  # what a second draw of each prompt adds
    with tqdm(total=8, disable=None, file=sys.stderr) as bar:
        draw_in_processes(BASE, [str(tmp_path)], missing, 2, images, bar)
    assert [path.is_file() for path in images] == [False, True] * 4
    assert [path.read_text() for path in sorted(tmp_path.glob("*.txt"))] == ["2", "2"]


def test_no_more_processes_are_started_than_there_are_cells(script, tmp_path):
    with tqdm(total=1) as bar:
        draw_in_processes(BASE, [str(tmp_path)], [0], 4, [tmp_path / "0.png"], bar)
    assert [path.name for path in tmp_path.glob("*.txt")] == ["0.txt"]


def test_a_process_that_fails_says_why(script):
    with tqdm(total=1) as bar, pytest.raises(ComparisonError, match="the disk is full"):
        draw_in_processes(BASE, ["fail"], [0, 1], 2, [], bar)


def given(*arguments):
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    return parser.parse_args(["compare", *arguments])


def test_the_command_that_draws_asks_for_the_same_files():
    asked = given(
        "study", "--base", "b", "--photos", "p", "--controlnet", "c", "--tokenizer", "t",
        "--adapter", "r4=x", "--adapters", "f", "--set", "seed=3", "--output", "o",
        "--prompts", "mine.txt", "--poses", "mine.json",
        "--without-pose", "--at-once", "3", "--no-scores",
    )  # fmt: skip
    drawn = given("plan.json", *drawing_command(asked), "--cells", "1.json")
    same = ("base", "photos", "class_images", "controlnet", "tokenizer", "adapter", "adapters",
            "output")  # fmt: skip
    assert {name: getattr(drawn, name) for name in same} == {
        name: getattr(asked, name) for name in same
    }
    assert drawn.cells == Path("1.json") and drawn.device == "cpu"
    changes = (drawn.set, drawn.prompts, drawn.poses, drawn.without_pose)
    assert changes == ([], None, None, False), "which the plan has by then"


@pytest.mark.parametrize("number", ["0", "-2"])
def test_at_once_is_at_least_one(number):
    asked = given("study", "--base", "b", "--device", "cpu", "--at-once", number)
    with pytest.raises(ComparisonError, match="at least 1"):
        asked.run(asked)


def test_rows_at_once_are_not_for_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    asked = given("study", "--base", "b", "--at-once", "2")
    with pytest.raises(ComparisonError, match="--device cpu"):
        asked.run(asked)


def test_encoders_that_are_not_there_are_said_before_anything_is_trained(tmp_path):
    asked = given("study", "--base", "b", "--device", "cpu", "--clip", str(tmp_path / "clip"))
    with pytest.raises(ComparisonError, match=r"--clip: .* does not exist"):
        asked.run(asked)
    asked = given("study", "--base", "b", "--device", "cpu", "--clip-text", str(tmp_path))
    with pytest.raises(ComparisonError, match="--clip-text needs --clip"):
        asked.run(asked)


def test_the_command_to_repeat_names_another_file_than_the_plan_of_digests():
    sets = ("--prompts", "/x/mine.txt", "--poses", "/x/mine.json")
    again = rerun_command(given("study", "--base", "b.st", "--adapters", "/x/mine", *sets))
    assert again == ("likeness compare comparison-plan.json --base b.st --adapters mine")


def result(steps=200):
    return SimpleNamespace(
        steps=steps, adapter="a.safetensors", folder="run", reused=False, stopped=False, losses=[],
        precision="fp32", peak_memory=0, seconds={},
    )  # fmt: skip


def test_one_bar_shows_all_rows(capsys):
    recipes = {name: preset(f"miniature-{name}") for name in ("tiny", "lora-r1")}
    screen = row_training.RowsProgressBar(recipes)
    screen.show("tiny", Event("stage", 0.0, {"name": "encode", "done": 3, "total": 9}))
    screen.show("lora-r1", Event("step", 0.0, {"step": 40, "total": 200}))
    screen.show("tiny", Event("notice", 0.0, {"text": "careful"}))
    bar = screen._bar
    assert bar.n == 40 and bar.total == 400
    assert bar.postfix == "tiny encode 3/9, lora-r1 40/200"
    screen.end("lora-r1", result())
    assert bar.n == 200 and bar.postfix == "tiny encode 3/9"
    screen.close()
    said = capsys.readouterr().out
    assert "tiny: careful" in said and "row      lora-r1\nadapter  a.safetensors" in said


def test_rows_are_not_begun_after_ctrl_c(monkeypatch, tmp_path):
    class Asked(row_training.InterruptHandler):
        def begin(self):
            self.asked = True

    monkeypatch.setattr(row_training, "InterruptHandler", Asked)
    folder = RunFolder(tmp_path)
    monkeypatch.setattr(row_training, "train", lambda *_, before_start, **__: before_start(folder))
    rows = row_training.train_in_parallel(SimpleNamespace(at_once=2))
    with pytest.raises(RunCancelled, match="was not started"):
        list(rows({"tiny": preset("miniature-tiny")}, None))


@pytest.mark.parametrize(
    ("asked", "cancelled", "ends"), [(False, False, True), (True, False, False), (True, True, True)]
)
def test_after_one_ctrl_c_a_row_that_is_being_saved_is_not_cancelled(
    monkeypatch, asked, cancelled, ends
):
    """Also when another row has ended, which cancels the others but for that."""
    interrupts, seen = row_training.InterruptHandler(), []
    monkeypatch.setattr(row_training, "InterruptHandler", lambda: interrupts)
    monkeypatch.setattr(
        row_training, "run_in_threads",
        lambda work, given, at_once: [(n, work(n, one, lambda: True)) for n, one in given.items()],
    )  # fmt: skip

    def train(recipe, places, *, interrupted, **_):
        interrupts.asked, interrupts.cancelled = asked, cancelled
        seen.append(interrupted())
        return result()

    monkeypatch.setattr(row_training, "train", train)
    rows = row_training.train_in_parallel(SimpleNamespace(at_once=2))
    list(rows({"tiny": preset("miniature-tiny")}, None))
    assert seen == [ends]


def test_rows_of_one_recipe_are_one_training(monkeypatch, capsys):
    begun = []

    def train(recipe, places, **_):
        begun.append(recipe.name)
        return result()

    monkeypatch.setattr(row_training, "train", train)
    r1, r4 = (preset(f"miniature-lora-{rank}") for rank in ("r1", "r4"))
    rows = row_training.train_in_parallel(SimpleNamespace(at_once=2))
    renamed = r4.changed(name="renamed", previews={"width": 64})
    trained = list(rows({"half": r4, "other": r1, "full": renamed}, None))
    assert len(begun) == 2 and sorted(name for name, _ in trained) == ["full", "half", "other"]
