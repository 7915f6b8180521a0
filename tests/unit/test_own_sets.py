"""Prompts and poses of a user's own files, through `likeness compare`."""

import json
from types import SimpleNamespace

import pytest
from likeness.cli import main
from likeness.comparison import cli as comparison
from likeness.comparison.compare import cell_files
from likeness.comparison.errors import ComparisonError
from likeness.comparison.keypoints import keypoints_of_poses, yoga_poses
from likeness.comparison.plan_file import find_plan
from PIL import Image

PLAN = {
    "name": "mine",
    "rows": [{"name": "base"}],
    "with_pose": "both",
    "image": {"width": 64, "height": 96, "steps": 2},
}
PROMPTS = "# mine\nbeach = a {token} {class} on the beach\n\na {class} in Zürich\n"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def frame(joints=18, **changes):
    """A frame of one person in pixels; `changes` are values by their place in the flat list."""
    flat = [value for n in range(joints) for value in (10.0 + 40 * n, 20.0 + 50 * n, 1.0)]
    for place, value in changes.items():
        flat[int(place.removeprefix("at"))] = value
    people = [{"pose_keypoints_2d": flat}]
    return {"canvas_width": 768, "canvas_height": 1024, "people": people}


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """Runs `likeness compare` up to where rows are taught: (what it says, the plan or None)."""

    def run(*arguments, **changes):
        taught = []

        def stop(plan, files, train_rows):
            taught.append(plan)
            raise ComparisonError("stopped here")

        monkeypatch.setattr(comparison, "train_missing", stop)
        plan = write(tmp_path / "plan.json", {**PLAN, **changes})
        given = ["compare", plan, "--base", tmp_path / "b.safetensors", *arguments]
        assert main(list(map(str, given))) == 1
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return said, taught[0] if taught else None

    return run


def names_of(plan):
    return [pose.name for pose in plan.pose_set()]


def texts_of(plan):
    return {prompt.key: prompt.text for prompt in plan.prompt_set().prompts}


OWN = {"beach": "a sks man on the beach", "a-in-zurich": "a man in Zürich"}


def test_files_on_the_command_line_stand_for_the_plans_own(compare, tmp_path):
    prompts = write(tmp_path / "elsewhere" / "mine.txt", PROMPTS)
    poses = write(tmp_path / "elsewhere" / "mine.json", [frame(), frame()])
    _, plan = compare("--prompts", prompts, "--poses", poses)
    assert texts_of(plan) == OWN and names_of(plan) == ["pose-1", "pose-2"]
    _, plan = compare("--prompts", "knowledge-check", "--poses", "yoga", prompts="study")
    assert plan.prompts == "knowledge-check" and plan.poses == "yoga"
    data = {"negative": "blurry", "prompts": [{"key": "a", "text": "a {class}"}]}
    _, plan = compare("--prompts", write(tmp_path / "set.JSON", data))
    assert texts_of(plan) == {"a": "a man"} and plan.prompt_set().negative == "blurry"


def test_a_plan_names_files_beside_it(compare, tmp_path):
    write(tmp_path / "sets" / "mine.txt", PROMPTS)
    write(tmp_path / "poses.json", {"poses": {"sitting": frame()}})
    _, plan = compare(prompts="sets/mine.txt", poses="poses.json")
    assert texts_of(plan) == OWN and names_of(plan) == ["sitting"]
    assert "mine.txt" not in plan.to_json() and "poses.json" not in plan.to_json()
    again = find_plan(str(write(tmp_path / "again" / "p.json", plan.to_json())))
    assert again == plan and again.matrix({}) == plan.matrix({})


@pytest.mark.parametrize(
    "name", ["../mine.txt", "/etc/mine.txt", "C:\\mine.txt", "\\\\host\\mine.txt", "a/../../m.txt",
             "a\0.txt", "a//b.txt"],
)  # fmt: skip
def test_a_plan_reads_nothing_outside_its_folder(compare, tmp_path, name):
    write(tmp_path.parent / "mine.txt", PROMPTS)
    for field in ("prompts", "poses"):
        said, plan = compare(**{field: name})
        assert plan is None and "files in its own folder" in said and "--prompts FILE" in said


def test_missing_joints_are_no_mistake(compare, tmp_path):
    unseen = {
        f"at{place}": 0.0 for joint in (0, 4, 17) for place in range(3 * joint, 3 * joint + 3)
    }
    _, plan = compare("--poses", write(tmp_path / "p.json", frame(**unseen)))
    (pose,) = plan.pose_set()
    assert [n for n, point in enumerate(pose.people[0]) if point is None] == [0, 4, 17]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (frame(at6=float("nan")), "the joint 'right shoulder' has the value nan; use 0"),
        (frame(5), "has 5 points instead of 18"),
        (frame(25), "has 25 points instead of 18"),
        ({**frame(), "people": []}, "choose an image in which one is detected"),
        ([], "give a frame or a list of frames"),
        ({"poses": {}}, "give a frame or a list of frames"),
        ("x = 1", "not JSON"),
        ({key: value for key, value in frame().items() if key != "canvas_width"}, "canvas_width"),
    ],
)
def test_bad_poses_are_told_with_their_file(compare, tmp_path, content, message):
    path = write(tmp_path / "poses.json", content)
    for said, plan in (compare("--poses", path), compare(poses="poses.json")):
        assert plan is None and message in said and str(path) in said


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "a dog\na {colour} dog", "{colour} is not a placeholder: use {token}"),
        ("p.txt", "# nothing\n", "no prompt: write one per line"),
        (
            "p.txt",
            "a dog\n" * 10_000,
            "10,000 prompts are too many for one comparison: give at most",
        ),
        ("p.json", {"prompts": [{"key": "a", "text": "{who}"}]}, "{who} is not a placeholder"),
        ("p.json", {"prompts": []}, "at least 1"),
        ("p.json", {"prompts": [{"key": f"k{n}", "text": "a"} for n in range(10_000)]}, "1000"),
        ("p.json", [], "prompt set"),
    ],
)
def test_bad_prompts_are_told_with_their_file(compare, tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    for said, plan in (compare("--prompts", path), compare(prompts=name)):
        assert plan is None and message in said and str(path) in said
        assert len(said) < 2000


def test_what_is_not_there_is_told(compare, tmp_path):
    gone = tmp_path / "gone.txt"
    for field in ("prompts", "poses"):
        for said, plan in (compare(f"--{field}", gone), compare(**{field: "gone.txt"})):
            assert plan is None and f"{gone} cannot be read: No such file" in said
    assert "no prompt set 'stduy': give a .txt file" in compare("--prompts", "stduy")[0]
    assert "no pose set 'yogi': give a .json file" in compare("--poses", "yogi")[0]


def test_poses_that_no_row_is_drawn_with_are_told(compare, tmp_path):
    path = write(tmp_path / "p.json", frame())
    for said, plan in (
        compare("--poses", path, with_pose="without"), compare("--poses", path, "--without-pose")
    ):  # fmt: skip
        assert plan is None and "no row has a pose" in said


def test_what_is_recorded_is_whole_and_names_no_place(tmp_path, monkeypatch, capsys):
    """Also when the files are gone: the plan that is kept beside the sheet has all of them."""
    base, control = (write(tmp_path / f"{name}.safetensors", name) for name in ("base", "control"))
    kind = SimpleNamespace(prediction="epsilon")
    monkeypatch.setattr("likeness.comparison.compare.identify", lambda path: kind)
    drawn = []

    def draw(plan, taught, files, *, on_cell, device):
        for cell, path in zip(plan.cells(), cell_files(plan, files.output), strict=True):
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (64, 96), (9, 9, 9)).save(path)
                drawn.append(cell)
            on_cell(cell)

    monkeypatch.setattr(comparison, "draw_missing", draw)

    def run(plan, *sets):
        given = ["compare", plan, "--base", base, "--controlnet", control, "--no-scores", *sets]
        assert main([*map(str, given), "--device", "cpu", "--output", str(tmp_path / "out")]) == 0

    sets = tmp_path / "private" / "sets"
    prompts = write(sets / "mine.txt", PROMPTS)
    poses = write(sets / "mine.json", keypoints_of_poses(yoga_poses()[:2], 768, 1024))
    run(write(tmp_path / "plan.json", PLAN), "--prompts", prompts, "--poses", poses)
    assert len(drawn) == 4 and {cell.prompt for cell in drawn} == set(OWN.values())

    folder = tmp_path / "out" / "likeness" / "comparisons" / "mine"
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "likeness compare comparison-plan.json" in report and "in Zürich" in report
    for file in [*folder.rglob("*.json"), *folder.rglob("*.html")]:
        text = file.read_text(encoding="utf-8")
        assert "private" not in text and "mine.txt" not in text and str(tmp_path) not in text
    prompts.unlink()
    poses.unlink()
    run(write(tmp_path / "copy.json", (folder / "comparison-plan.json").read_text("utf-8")))
    assert len(drawn) == 4, "nothing is drawn again"
