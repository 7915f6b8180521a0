"""Node schemas and bundled workflows are what saved graphs rely on, checked without ComfyUI.

`core_nodes.json` describes the nodes of ComfyUI 0.33.0 that the workflows use, and
`our_nodes.json` ours. A changed name, order, default or range there breaks graphs that users
saved: change it only with a new version and say so in the change log.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))
GRAPHS = runpy.run_path(str(ROOT / "tests" / "comfy" / "graphs.py"))
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
FIRST = ("train_lora", "train_dreambooth", "use_adapter")
BASE = "v1-5-pruned-emaonly-fp16.safetensors"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


CORE, OURS = read(GOLDEN / "core_nodes.json"), read(GOLDEN / "our_nodes.json")
TABLE = {**CORE, **OURS}


@pytest.fixture(scope="module")
def nodes():
    import asyncio

    extension = STUB["install"]().LikenessExtension()
    return asyncio.run(extension.get_node_list())


def test_our_schemas_are_the_golden_ones(nodes):
    assert STUB["table"](nodes) == OURS


def test_every_input_says_what_it_is_for(nodes):
    for node in nodes:
        schema = node.define_schema()
        assert schema.description and schema.category == "Likeness"
        for part in schema.inputs:
            assert part.options.get("tooltip"), f"{schema.node_id}.{part.id}"


def test_every_node_has_a_help_page(nodes):
    for node in nodes:
        page = ROOT / "js" / "docs" / f"{node.define_schema().node_id}.md"
        text = page.read_text(encoding="utf-8")
        for part in node.define_schema().inputs:
            assert f"`{part.id}`" in text, f"{page.name} does not explain {part.id}"


def test_the_first_workflows_are_there_with_pictures():
    for name in FIRST:
        assert (ROOT / "workflows" / f"{name}.json").is_file()
        picture = (ROOT / "workflows" / f"{name}.jpg").read_bytes()
        assert picture[:3] == b"\xff\xd8\xff"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_bundled_workflow_loads_as_it_was_saved(path):
    graph = read(path)
    assert graph["version"] == 0.4
    ids = {node["id"]: node for node in graph["nodes"]}
    assert graph["last_node_id"] == max(ids) and len(ids) == len(graph["nodes"])
    for node in graph["nodes"]:
        if node["type"] in GRAPHS["NOTES"]:
            continue
        row = TABLE[node["type"]]
        assert [slot["type"] for slot in node["outputs"]] == [o["type"] for o in row["outputs"]]
        for part in row["inputs"]:
            check_value(part, GRAPHS["widget_values"](node, row))
    prompt = GRAPHS["to_prompt"](graph, TABLE)
    for node in prompt.values():
        needed = [p["name"] for p in TABLE[node["class_type"]]["inputs"] if not p["optional"]]
        assert set(needed) <= set(node["inputs"]), node


def check_value(part, values):
    """The saved value of a widget has its type and range."""
    if part["name"] not in values:
        return
    value = values[part["name"]]
    types = {"INT": int, "FLOAT": (int, float), "BOOLEAN": bool}
    assert isinstance(value, types.get(part["type"], str)), part
    if "min" in part:
        assert part["min"] <= value <= part["max"], part


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_links_join_outputs_and_inputs_of_one_type(path):
    graph = read(path)
    ids = {node["id"]: node for node in graph["nodes"]}
    seen = set()
    for link, source, out, target, slot, kind in graph["links"]:
        output, entry = ids[source]["outputs"][out], ids[target]["inputs"][slot]
        assert link in output["links"] and entry["link"] == link
        assert output["type"] == kind and (kind == entry["type"] or "*" in (kind, entry["type"]))
        seen.add(link)
    ends = [slot["link"] for node in graph["nodes"] for slot in node["inputs"]]
    assert seen == {link for link in ends if link is not None}


@pytest.mark.parametrize("name", FIRST)
def test_the_frontend_can_offer_the_base_model_and_find_the_pack(name):
    graph = read(ROOT / "workflows" / f"{name}.json")
    for node in graph["nodes"]:
        properties = node["properties"]
        if node["type"].startswith("Likeness_"):
            assert properties["cnr_id"] == "comfyui-likeness" and properties["ver"]
        if BASE in (node.get("widgets_values") or []):
            (model,) = properties["models"]
            assert model["name"] == BASE and model["directory"] == "checkpoints"
            assert model["url"].startswith("https://")
    loaders = [n for n in graph["nodes"] if n["type"] == "CheckpointLoaderSimple"]
    assert loaders and all("models" in node["properties"] for node in loaders)
