"""Writes the tables of node schemas that saved graphs are checked against, in `tests/golden`.

    python tests/comfy/store_schemas.py                          our nodes
    python tests/comfy/store_schemas.py http://127.0.0.1:8188    also core's, of that ComfyUI

Of core's nodes those are kept that a bundled workflow uses, and those that were there.
"""

from __future__ import annotations

import asyncio
import json
import runpy
import sys
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORE, OURS = (ROOT / "tests" / "golden" / f"{name}_nodes.json" for name in ("core", "our"))
GRAPHS = runpy.run_path(str(HERE / "graphs.py"))


def our_table() -> dict[str, Any]:
    """The schemas of our own nodes, without ComfyUI."""
    runpy.run_path(str(ROOT / "__main__.py"), run_name="likeness_main")["load_package"]()
    stub = runpy.run_path(str(HERE / "stub.py"))
    extension = stub["install"]().LikenessExtension()
    return dict(stub["table"](asyncio.run(extension.get_node_list())))


def core_table(address: str) -> dict[str, Any]:
    """The schemas of core's nodes that are wanted, asked of a running server."""
    with urllib.request.urlopen(f"{address}/object_info", timeout=60) as answer:
        table = GRAPHS["table_of"](json.load(answer))
    wanted = set(json.loads(CORE.read_text(encoding="utf-8")))
    for path in (ROOT / "workflows").glob("*.json"):
        nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
        wanted |= {node["type"] for node in nodes} - set(GRAPHS["NOTES"])
    return {name: table[name] for name in sorted(wanted) if not name.startswith("Likeness_")}


def write(path: Path, table: dict[str, Any]) -> None:
    """JSON with a line for each socket."""
    nodes = []
    for name, row in table.items():
        parts = ",\n".join(f'  "{part}": {_lines(slots)}' for part, slots in row.items())
        nodes.append(f' "{name}": {{\n{parts}\n }}')
    path.write_text("{\n" + ",\n".join(nodes) + "\n}\n", encoding="utf-8")


def _lines(slots: list[dict[str, Any]]) -> str:
    lines = ",\n".join(f"   {json.dumps(slot)}" for slot in slots)
    return f"[\n{lines}\n  ]" if slots else "[]"


def main() -> None:
    """Writes the tables."""
    write(OURS, our_table())
    if len(sys.argv) > 1:
        write(CORE, core_table(sys.argv[1]))


if __name__ == "__main__":
    main()
