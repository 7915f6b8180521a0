"""What ComfyUI makes of our schemas, and what it has today for the nodes we use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.comfy

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
# They pass on what they show; ComfyUI 0.8.0's do not. No workflow takes it from them.
PASS_ON = ("PreviewAny", "PreviewImage", "SaveImage")


@pytest.mark.parametrize("file", ["core_nodes.json", "our_nodes.json"])
def test_the_server_describes_the_nodes_as_the_golden_table(light_server, graphs, file):
    golden = json.loads((GOLDEN / file).read_text(encoding="utf-8"))
    served = graphs["table_of"](light_server.get("/object_info"))
    for name in PASS_ON:
        if name in golden and not served[name]["outputs"]:
            golden[name]["outputs"] = []
    assert {name: served.get(name) for name in golden} == golden


def test_all_our_nodes_are_listed_with_their_pack(light_server):
    info = light_server.get("/object_info")
    golden = json.loads((GOLDEN / "our_nodes.json").read_text(encoding="utf-8"))
    ours = {name for name in info if name.startswith("Likeness_")}
    assert ours == set(golden)
    assert all("ComfyUI-Likeness" in info[name]["python_module"] for name in ours)


def test_the_help_pages_are_served_where_the_frontend_asks(light_server):
    for name in json.loads((GOLDEN / "our_nodes.json").read_text(encoding="utf-8")):
        assert light_server.text(f"/extensions/ComfyUI-Likeness/docs/{name}.md").startswith("# ")


def test_the_workflows_are_served_as_templates(light_server):
    names = {path.stem for path in (GOLDEN.parents[1] / "workflows").glob("*.json")}
    templates = light_server.get("/workflow_templates")
    assert names <= set(templates["ComfyUI-Likeness"])
