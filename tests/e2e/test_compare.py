"""`likeness compare` in real processes, on a tiny model of random weights."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel
from likeness.comparison.keypoints import yoga_poses
from likeness.trainers.base_model import load_base
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "subject": {"resolution": 64},
    "schedule": {"steps": 3},
    "prior": {"count": 2, "steps": 2},
    "compute": {"attention": "sdpa", "precision": "fp32"},
    "optimizer": {"name": "adamw"},
}
PROMPTS = [
    {"key": "beach", "text": "a photo of {token} {class} on the beach"},
    {"key": "emoji", "text": "{token} {class} 😀 مرحبا <b>" + "long " * 60},
]


def write_plan(folder, **changes):
    data = {
        "name": "small",
        "rows": [{"name": "base"}, {"name": "r1", "preset": "lora-r1"}],
        "prompts": {"prompts": PROMPTS},
        "class_prompts": True,
        "draws": 2,
        "image": {"width": 64, "height": 96, "steps": 2},
        "changes": SMALL,
        **changes,
    }
    path = folder / "plan.json"
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.fixture
def compare(likeness, base, photos, tmp_path):
    """Runs a small comparison; `changes` are of its plan."""

    def run(*arguments, check=True, **changes):
        plan = write_plan(tmp_path, **changes)
        given = ["--base", base, "--photos", photos, "--device", "cpu"]
        return likeness("compare", plan, *given, *arguments, check=check)

    return run


def written(tmp_path, pattern):
    """Times at which files below the output folder were written."""
    return {path: path.stat().st_mtime_ns for path in (tmp_path / "output").rglob(pattern)}


def test_rows_are_trained_drawn_and_reported_once(compare, likeness, base, tmp_path):
    compare()
    folder = tmp_path / "output" / "likeness" / "comparisons" / "small"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    for row in ("base", "r1"):
        for key in ("beach", "beach@2", "emoji-class@2"):
            assert f"{row}/64x96/{key}.png" in names
    assert len(names) == 16 + 1
    (sheet,) = folder.glob("sheet-*.png")
    assert Image.open(sheet).size[0] > 64 * 4
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert scores["row_names"] == ["base", "r1"]
    assert any("CLIP is left out" in note for note in scores["notes"])

    report = (folder / "report.html").read_text(encoding="utf-8")
    assert report.count("data:image/jpeg") == 16
    assert "LoRA of rank 1" in report and "likeness compare comparison-plan.json" in report
    assert "😀 مرحبا &lt;b&gt;" in report and "<b>long" not in report
    assert str(tmp_path) not in report and str(base.parent) not in report
    assert not re.search(r"(src|href)=\"(?!data:)", report)

    kept = written(tmp_path, "*.png") | written(tmp_path, "*.safetensors")
    again = compare().stdout
    assert "nothing was trained" in again and "nothing to generate" in again
    cells = tmp_path / "output" / "likeness" / "cells"
    for path, moment in kept.items():
        if path.is_relative_to(cells) or path.suffix == ".safetensors":
            assert path.stat().st_mtime_ns == moment, path

    (adapter,) = (tmp_path / "output" / "loras").glob("*.safetensors")
    named = compare("--adapter", f"mine={adapter}", "--no-scores", rows=[{"name": "base"}]).stdout
    assert "nothing to generate" in named, "the same adapter under another name"
    assert (folder / "mine" / "64x96" / "beach.png").is_file()


def listen():
    """Undoes what a shell does to programs in the background, which then never hear of Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted(process, when):
    """What the process says that gets a Ctrl-C as soon as `when()`."""
    try:
        deadline = time.monotonic() + 300
        while not when() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        return process.communicate(timeout=120)
    finally:
        process.kill()


def test_ctrl_c_keeps_what_is_drawn(base, tmp_path):
    plan = write_plan(tmp_path, rows=[{"name": "base"}], draws=10, image={
        "width": 64, "height": 64, "steps": 20,
    })  # fmt: skip
    command = [sys.executable, str(ROOT), "compare", str(plan), "--base", str(base), "--no-scores",
               "--device", "cpu"]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=listen,
    )  # fmt: skip
    cells = tmp_path / "output" / "likeness" / "cells"
    said, _ = interrupted(process, lambda: len(list(cells.glob("*.png"))) >= 3)
    kept = written(tmp_path, "cells/*.png")
    assert process.returncode == 130 and 3 <= len(kept) < 40
    assert f"{len(kept)} of 40 cells are saved" in said
    assert not list(cells.glob("*.partial"))
    for path in kept:
        Image.open(path).load()
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert len(written(tmp_path, "cells/*.png")) == 40
    assert all(path.stat().st_mtime_ns == moment for path, moment in kept.items())


def test_rows_at_once_are_the_rows_one_by_one(compare, tmp_path):
    rows = [{"name": "base"}, *({"name": f"r{n}", "preset": f"lora-r{n}"} for n in (1, 4, 8))]
    compare("--no-scores", rows=rows)
    output = tmp_path / "output"
    alone = {path.name: path.read_bytes() for path in output.rglob("cells/*.png")}
    output.rename(tmp_path / "alone")
    said = compare("--no-scores", "--at-once", "2", rows=rows).stdout
    assert all(f"row      r{n}\nadapter " in said for n in (1, 4, 8))
    assert {path.name: path.read_bytes() for path in output.rglob("cells/*.png")} == alone
    assert len(alone) == 32
    again = compare("--no-scores", "--at-once", "2", rows=rows).stdout
    assert again.count("nothing was trained") == 3 and "nothing to generate" in again


def test_a_pattern_has_the_files_of_the_start_though_others_are_trained(compare, tmp_path):
    compare("--no-scores", rows=[{"name": "r1", "preset": "lora-r1"}])
    rows = [{"name": "r4", "preset": "lora-r4"}, {"name": "e", "adapter": "*.safetensors"}]
    compare("--no-scores", "--at-once", "2", rows=rows)
    output = tmp_path / "output"
    assert len(list((output / "loras").iterdir())) == 2
    (plan,) = output.rglob("comparison-plan.json")
    (named,) = (row["adapter"] for row in json.loads(plan.read_text())["rows"][1:])
    assert "lora-r1" in named
    assert len(written(tmp_path, "cells/*.png")) == 16, "the row e was there"


def test_ctrl_c_saves_all_rows_that_train_at_once(base, photos, tmp_path):
    slow = {**SMALL, "schedule": {"steps": 4000}}
    rows = [{"name": f"r{n}", "preset": f"lora-r{n}"} for n in (1, 4, 8)]
    plan = write_plan(tmp_path, rows=rows, changes=slow)
    process = subprocess.Popen(
        [sys.executable, str(ROOT), "compare", str(plan), "--base", str(base), "--device", "cpu",
         "--photos", str(photos), "--at-once", "2"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen,
    )  # fmt: skip
    events = tmp_path / "output" / "likeness" / "runs"
    _, errors = interrupted(process, lambda: training(events) >= 2)
    assert "Saving what is learned" in errors and "stopped after" in errors
    assert process.returncode == 1
    assert len(list(events.iterdir())) == 2, "the third row was not begun"
    assert len(list(events.glob("*/checkpoints/*"))) == 2, "both rows are saved"


def training(runs):
    """How many runs have begun to train."""
    return sum('"step"' in path.read_text() for path in runs.glob("*/events.jsonl"))


def test_rows_with_poses_need_a_controlnet(compare):
    rows = [{"name": "base", "with_pose": "both"}]
    refused = compare(check=False, rows=rows)
    assert refused.returncode == 1 and "--controlnet FILE" in refused.stderr
    compare("--without-pose", "--no-scores", rows=rows, prompts={"prompts": PROMPTS[:1]})


@pytest.fixture
def controlnet(base, tmp_path):
    """A ControlNet of random weights, also where a new one's are 0."""
    torch.manual_seed(0)
    model = ControlNetModel.from_unet(load_base(base).unet)
    hint = model.controlnet_cond_embedding.conv_out
    for layer in (*model.controlnet_down_blocks, model.controlnet_mid_block, hint):
        torch.nn.init.normal_(layer.weight)
    model.save_pretrained(tmp_path / "control")
    return tmp_path / "control"


def test_each_pose_makes_an_image_of_its_own(compare, controlnet, tmp_path):
    def drawn(pose, strength=1.0):
        compare(
            *("--controlnet", controlnet, "--no-scores"),
            rows=[{"name": "base", "with_pose": "both"}],
            prompts={"prompts": PROMPTS[:1]},
            class_prompts=False,
            draws=1,
            poses=[pose.model_dump(mode="json")],
            control_strength=strength,
        )
        folder = tmp_path / "output" / "likeness" / "comparisons" / "small"
        plain, posed = (folder / row / "64x96" / "beach.png" for row in ("base", "base_cnet"))
        return Image.open(plain).tobytes(), Image.open(posed).tobytes()

    one, other = yoga_poses()[:2]
    (plain, first), (again, second), (_, without) = drawn(one), drawn(other), drawn(one, 0.0)
    assert plain == again == without
    assert len({plain, first, second}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": [{"name": "r", "preset": "lora-r9"}]}, "no preset 'lora-r9'"),
        ({"rows": [{"name": "r", "adapter": "gone.safetensors"}]}, "needs gone.safetensors"),
        ({"rows": [{"name": "r"}, {"name": "R"}]}, "called 'R'"),
        ({"prompts": "nobody"}, "no prompt set 'nobody'"),
        ({"draw": 2}, "draw"),
        ({"changes": {"schedule": {"step": 3}}}, "schedule.step"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused_at_once(compare, tmp_path, changes, message):
    done = compare(check=False, **changes)
    assert done.returncode == 1 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "output" / "loras").exists()
