"""What a comparison cannot draw is said: before the queue starts where that is possible."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(600)]

LIGHT = runpy.run_path(str(Path(__file__).with_name("light.py")))
PROMPTS, graph, node = LIGHT["PROMPTS"], LIGHT["graph"], LIGHT["node"]


def test_a_graph_that_cannot_be_drawn_says_why(server):
    def message(**changes):
        prompt = graph("wrong")
        for key, inputs in changes.items():
            prompt[key.strip("n")]["inputs"] |= inputs
        prompt["8"] = node("EmptyImage", width=64, height=96, batch_size=2, color=0)
        prompt["9"] = {**prompt["2"], "inputs": {**prompt["2"]["inputs"], "seed": 6}}
        return server.refused(prompt)

    assert "does not depend on the Matrix" in message(n7={"image": ["8", 0]})
    assert "wired straight" in message(n7={"image": ["2", 4]})
    assert "from a different Matrix" in message(n7={"matrix": ["9", 9]})


def test_what_can_be_known_before_is_said_before_the_queue_starts(server):
    missing = graph("missing", adapters=("base", "nobody.safetensors"))
    assert "There is no LoRA or checkpoint 'nobody.safetensors'" in server.refused(missing)
    nothing = graph("nothing", adapters=("base", "r4 = adapter_2"))
    assert "row 'r4' refers to adapter_2" in server.refused(nothing)
    unknown = graph("unknown", adapters=("base",), with_pose="with", pose_rows="r4")
    assert "there is no row 'r4'" in server.refused(unknown)
    label = graph("label", adapters=("größe/2 = base",))
    assert "'größe/2' has an invalid name" in server.refused(label)
    bare = graph("bare", adapters=("base",), with_pose="both")
    assert "the Matrix has no poses" in server.refused(bare)
    path = graph("../out")
    assert "contains no path" in server.refused(path)
    for lines, said in (
        (("a = a photo of {nobody}",), "{nobody} is not a placeholder"),
        ((), "There is no prompt"),
        (("# a = a photo",), "There is no prompt"),
        ((f"a photo {number}" for number in range(10_000)), "10,000 prompts are too many"),
    ):
        prompt = graph("wrong")
        prompt["1"]["inputs"]["text"] = "\n".join(lines)
        assert said in server.refused(prompt)


def test_one_mistake_was_told_as_five_errors_on_the_wrong_inputs(server):
    wrong = graph("five", adapters=("base", "r4 = adapter_2"), with_pose="both")
    wrong["8"] = node("Likeness_PoseSet", poses="tree", width=64, height=96)
    wrong["2"]["inputs"] |= {"poses": ["8", 0], "adapter_3": ["8", 1]}
    status, answer = server.post("/prompt", {"prompt": wrong})
    assert status == 400 and set(answer["node_errors"]) == {"2"}
    (error,) = answer["node_errors"]["2"]["errors"]
    assert error["details"].startswith("Matrix row 'r4' refers to")
    # The browser shows the details of exceptions at once, those of returned texts on a click.
    assert error["type"] == "exception_during_inner_validation"


def test_a_bypassed_load_adapter_is_told_before_the_queue_starts(server):
    """The browser queues a bypassed node as if it were not there: its inputs go on."""
    prompt = graph("bypassed")
    prompt["3"]["inputs"]["adapter"] = "one.safetensors"
    assert "Row one has an adapter, but nothing uses it" in server.refused(prompt)
    poses = graph("bypassed", adapters=("base",), with_pose="with")
    poses["8"] = node("EmptyImage", width=64, height=96, batch_size=1, color=0)
    poses["9"] = node("Likeness_PoseSet", poses="tree", width=64, height=96)
    poses["2"]["inputs"]["poses"], poses["6"]["inputs"]["pose"] = ["9", 0], ["8", 0]
    assert "Row base_cnet has poses" in server.refused(poses)
    prompts = graph("bypassed", adapters=("base",))
    prompts["4"]["inputs"]["text"] = "always this"
    assert "There are several prompts, but nothing uses them" in server.refused(prompts)


def test_names_of_cells_and_sheets_are_checked_before_the_queue_starts(server):
    prompt = graph("names", redraw="beech")
    assert "'beech' matches no cell" in server.refused(prompt)
    prompt["7"]["inputs"] |= {"redraw": "", "draw_only": "base / beech"}
    assert "'base / beech' matches no cell" in server.refused(prompt)
    prompt["7"]["inputs"]["draw_only"] = ""
    prompt["8"] = {**prompt["7"], "inputs": {**prompt["7"]["inputs"], "name": "Names"}}
    assert "Two Contact Sheets are called 'names'" in server.refused(prompt)


JOINTS = [0.5, 0.25, 1.0] * 18


@pytest.mark.parametrize(
    ("keypoints", "said"),
    [
        (JOINTS[:15], "has 5 points instead of 18"),
        ([*JOINTS[:-3], float("nan"), 0.5, 1.0], "the joint 'left ear' has the value nan"),
        ([0.0] * 54, "There is no person"),
    ],
)
def test_a_pose_that_is_none_is_said(server, keypoints, said):
    outcome = server.run(posed("wrong", keypoints))
    assert outcome.status == "error" and said in outcome.error["exception_message"]


def test_a_pose_with_missing_joints_is_drawn(server, drawn):
    outcome = server.run(posed("half", JOINTS[:24] + [0.0] * 30))
    assert outcome.status == "success", outcome.error
    assert {float(light) > 0 for *_, light in drawn()} == {True}


def posed(name, keypoints):
    """A comparison with the pose of POSE_KEYPOINT's values for one person."""
    frame = {"canvas_width": 64, "canvas_height": 96, "people": [{"pose_keypoints_2d": keypoints}]}
    prompt = graph(name, adapters=("base",), prompts=PROMPTS[:1], with_pose="with")
    sizes = {"width": 64, "height": 96}
    prompt["8"] = node("Likeness_PoseSet", poses="tree", keypoints=["9", 0], **sizes)
    prompt["9"] = node("TestKeypoints", text=json.dumps([frame]))
    prompt["2"]["inputs"]["poses"] = ["8", 0]
    return prompt
