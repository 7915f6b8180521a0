"""Node schemas are what saved graphs rely on, checked without ComfyUI.

`our_nodes.json` describes our nodes, and `core_nodes.json` those of ComfyUI 0.33.0 that the bundled
workflows use. A changed name, order, default or range breaks graphs that users saved: change it
only with a new version and say so in the change log. `tests/comfy/store_schemas.py` writes both.
"""

from __future__ import annotations

import json
import re
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


def explained(page, kind):
    """Names in the first column of a help page's table of inputs or outputs, or in its line."""
    table = re.search(rf"^\| {kind} \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    if table is None:
        line = re.search(rf"^{kind.capitalize()}s: (.+)$", page, re.MULTILINE)
        return re.findall(r"`(\w+)`", line[1] if line else "")
    cells = [row.split("|")[1] for row in table[1].splitlines()]
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


@pytest.mark.parametrize("name", OURS)
def test_a_help_page_explains_every_input_and_output(name):
    page = (ROOT / "js" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for kind in ("input", "output"):
        wanted = [part["name"] for part in OURS[name][f"{kind}s"]]
        assert sorted(explained(page, kind)) == sorted(wanted), kind


@pytest.mark.parametrize("name", OURS)
def test_a_help_page_warns_of_common_mistakes(name):
    page = (ROOT / "js" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert "**Common mistakes**" in page or "(internal)" in page
