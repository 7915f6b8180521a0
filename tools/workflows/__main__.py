"""``python -m tools.workflows``, run from the repository root, writes `workflows/*.json`."""

from __future__ import annotations

import json
from typing import Any

from .graph import ROOT
from .pages import pages
from .serialize import saved


def text_of(graph: dict[str, Any]) -> str:
    """A graph as JSON with one line per node, link and group."""

    def value(part: Any) -> str:
        if not isinstance(part, list):
            return json.dumps(part, ensure_ascii=False)
        lines = ",\n".join(f"  {json.dumps(item, ensure_ascii=False)}" for item in part)
        return f"[\n{lines}\n ]" if part else "[]"

    lines = ",\n".join(f" {json.dumps(key)}: {value(part)}" for key, part in graph.items())
    return f"{{\n{lines}\n}}\n"


def main() -> None:
    """Writes all workflows."""
    for page in pages():
        path = ROOT / "workflows" / f"{page.name}.json"
        path.write_text(text_of(saved(page)), encoding="utf-8")


if __name__ == "__main__":
    main()
