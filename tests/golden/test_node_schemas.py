"""Node schemas are what saved graphs rely on, checked without ComfyUI.

`our_nodes.json` describes our nodes, and `core_nodes.json` those of ComfyUI 0.33.0 that the bundled
workflows use. A changed name, order, default or range breaks graphs that users saved: change it
only with a new version and say so in the change log. `tests/comfy/store_schemas.py` writes both.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))
OURS = json.loads((GOLDEN / "our_nodes.json").read_text(encoding="utf-8"))


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
