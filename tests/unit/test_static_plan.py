"""What a comparison is told to lack while its prompt is checked, before anything is trained."""

from __future__ import annotations

import importlib
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))
LIGHT = runpy.run_path(str(ROOT / "tests" / "comfy" / "light.py"))


@pytest.fixture
def nodes(tmp_path):
    """Modules by name; the files one, two and three are LoRAs."""
    names = [f"{name}.safetensors" for name in ("one", "two", "three")]
    STUB["install"](
        {
            "get_filename_list": lambda kind: names if kind == "loras" else [],
            "get_full_path": lambda kind, name: str(tmp_path / name),
        }
    )
    modules = ("contact_sheet", "static_plan", "matrix", "prompt_set")
    yield SimpleNamespace(
        **{name: importlib.import_module(f"likeness.nodes.{name}") for name in modules}
    )
    STUB["install"]()


@pytest.fixture
def prompt():
    """A comparison with two sockets of train nodes, whose adapters are not known yet."""
    graph = LIGHT["graph"]("study", adapters=("base", "r1 = adapter_1", "r4=adapter_2"))
    train = LIGHT["node"]("Likeness_TrainLoRA")
    graph["2"]["inputs"] |= {"adapter_1": ["21", 0], "adapter_2": ["22", 0]}
    return {**graph, "21": train, "22": train}


def refused(nodes, prompt):
    """The reason for which the Contact Sheet refuses a prompt."""
    return STUB["refused"](nodes.contact_sheet.check_prompt, prompt, "7")


def test_what_is_not_trained_yet_has_stand_ins(nodes, prompt):
    known = nodes.static_plan.static_plan(prompt, "2")
    assert known.names_known and known.plan.rows() == ("base", "r1", "r4")
    assert known.plan.columns() == ("beach", "rain", "chess")
    assert [variant.adapter is None for variant in known.plan.variants] == [True, False, False]
    nodes.contact_sheet.check_prompt(prompt, "7")


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("2", {"adapters": "base\nadapter_1\nadapter_2"}),  # the rows are called as their files
        ("2", {"adapters": "base\none.safetensors @ steps\nr1 = adapter_1"}),
        ("2", {"draws": ["9", 0]}),
        ("1", {"text": ["9", 0]}),
        ("2", {"prompts": ["21", 0]}),
    ],
)
def test_cells_that_nobody_can_name_yet_are_not_looked_for(nodes, prompt, key, changes):
    prompt[key]["inputs"] |= changes
    assert not nodes.static_plan.static_plan(prompt, "2").names_known
    prompt["7"]["inputs"]["redraw"] = "nobody"
    nodes.contact_sheet.check_prompt(prompt, "7")


def test_a_redraw_line_that_names_no_cell_was_told_after_the_training(nodes, prompt):
    prompt["7"]["inputs"]["redraw"] = "r4 / beech"
    assert "'r4 / beech' matches no cell" in refused(nodes, prompt)
    prompt["7"]["inputs"] |= {"redraw": "r4 / beach", "draw_only": "r2"}
    assert "'r2' matches no cell" in refused(nodes, prompt)
    prompt["1"]["inputs"] |= {"token": ["20", 3], "class_word": ["20", 4]}
    assert "'r2' matches no cell" in refused(nodes, prompt), "columns do not depend on the token"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, True),
        ({"save_adapter_every": 0}, True),
        ({"save_adapter_every": 800}, True),
        ({"save_adapter_every": 200}, False),
        ({"save_adapter_every": ["9", 0]}, False),
        (None, True),
    ],
)
def test_steps_that_a_training_does_not_save_were_told_after_it(nodes, prompt, options, said):
    prompt["2"]["inputs"]["adapters"] = "base\nr1 = adapter_1 @ steps\nr4 = adapter_2"
    prompt["21"] = LIGHT["node"]("Likeness_TrainLoRA", steps=800)
    if options is not None:
        prompt["21"]["inputs"]["options"] = ["23", 0]
        prompt["23"] = LIGHT["node"]("Likeness_TrainOptions", **options)
    if said:
        assert "'r1': its training will save no intermediate files" in refused(nodes, prompt)
    else:
        nodes.contact_sheet.check_prompt(prompt, "7")


@pytest.mark.parametrize(
    ("adapters", "pose_rows", "said"),
    [
        ("base\nr1.5 = adapter_1 @ steps\nr4 = adapter_2", "r1.5_200\nr1.5\nr4", False),
        ("base\nr1 = adapter_1 @ steps\nr4 = adapter_2", "r8_200", True),
        ("base\nr1 = adapter_1 @ steps\nr4 = adapter_2", "r4_200", True),
        ("base\nr1 = adapter_1 @ steps\nadapter_2", "r8_200", False),  # may be a reused run's
    ],
)
def test_pose_rows_that_nothing_will_be_called_were_told_after_the_training(
    nodes, prompt, adapters, pose_rows, said
):
    prompt["2"]["inputs"] |= {"adapters": adapters, "pose_rows": pose_rows}
    for key in ("21", "22"):
        inputs = {"name": "anna", "steps": 800, "options": ["23", 0]}
        prompt[key] = LIGHT["node"]("Likeness_TrainLoRA", **inputs)
    prompt["23"] = LIGHT["node"]("Likeness_TrainOptions", save_adapter_every=200)
    if said:
        assert "there will be no row" in refused(nodes, prompt)
    else:
        nodes.contact_sheet.check_prompt(prompt, "7")


def test_what_other_packs_nodes_write_is_not_guessed(nodes, prompt):
    prompt["2"]["inputs"] |= {"adapters": "base\nadapter_1\nadapter_2 @ steps", "pose_rows": "x"}
    prompt["21"] = prompt["22"] = LIGHT["node"]("AnotherTrainer", name="anna", steps=800)
    nodes.contact_sheet.check_prompt(prompt, "7")


def test_a_bypassed_load_adapter_is_told_before_the_training(nodes, prompt):
    prompt["3"]["inputs"]["adapter"] = "one.safetensors"
    assert "Row r1 has an adapter, but nothing uses it" in refused(nodes, prompt)


def test_two_contact_sheets_of_one_name_were_told_after_the_training(nodes, prompt):
    prompt["8"] = LIGHT["node"]("Likeness_ContactSheet", name="Study")
    assert "Two Contact Sheets are called 'study'" in refused(nodes, prompt)
    prompt["7"]["inputs"]["name"], prompt["8"]["inputs"]["name"] = "Mu\u0308ller", "Müller"
    assert "Two Contact Sheets" in refused(nodes, prompt)


def test_a_controlnet_of_another_family_was_told_after_the_training(nodes, prompt, monkeypatch):
    seen = []
    monkeypatch.setattr(nodes.contact_sheet, "check_controlnets", lambda *given: seen.append(given))
    nodes.contact_sheet.check_prompt(prompt, "7")
    assert [set(graph) for graph, _ in seen] == [{"3", "4", "5", "6"}]


def test_what_another_node_says_of_itself_is_not_said_twice(nodes, prompt):
    prompt["3"]["inputs"]["adapter"] = "one.safetensors"
    for key, name, value in (("2", "adapters", "x = adapter_7"), ("1", "text", "a {colour}")):
        good, prompt[key]["inputs"][name] = prompt[key]["inputs"][name], value
        nodes.contact_sheet.check_prompt(prompt, "7")
        prompt[key]["inputs"][name] = good


def test_a_prompt_that_is_no_graph_is_left_to_comfyui(nodes, prompt):
    check = nodes.contact_sheet.check_prompt
    check({}, "7")
    check({"7": {"class_type": "SaveImage", "inputs": {}}}, "7")
    prompt["7"]["inputs"] = {}
    check(prompt, "7")
    prompt["7"]["inputs"] = {"image": ["99", 0], "matrix": ["2", 9]}
    check(prompt, "7")
    prompt["7"]["inputs"] = {"image": ["6", 0], "matrix": ["2", 9]}
    prompt["3"]["inputs"]["adapter"] = ["6", 0]
    assert "form a loop" in refused(nodes, prompt)


def test_each_request_is_checked_with_its_own_prompt(nodes, prompt):
    data = {"prompt": prompt, "client_id": "x"}
    assert nodes.static_plan.on_prompt(data) is data
    assert nodes.static_plan.current_prompt() is prompt
    nodes.static_plan.on_prompt({"prompt": ["no graph"]})
    assert nodes.static_plan.current_prompt() == {}


def test_a_cancelled_comparison_left_its_way_of_taking_memory_to_the_next_prompt(
    nodes, monkeypatch
):
    did = []
    monkeypatch.setattr(nodes.static_plan, "set_mmap_threshold", did.append)
    assert nodes.static_plan.on_prompt({"prompt": {}}) == {"prompt": {}}
    assert did == [False]
