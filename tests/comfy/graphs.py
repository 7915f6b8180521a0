"""Graphs as the frontend saves them (version 0.4), read with the server's node descriptions.

Run by path (`runpy`), because tests are no package.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

NOTES = ("Note", "MarkdownNote")
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
KEPT = ("default", "min", "max", "step", "control_after_generate")

Table = dict[str, dict[str, Any]]


def table_of(object_info: dict[str, Any]) -> Table:
    """Node descriptions of `/object_info` without texts and lists of files.

    A row is {"inputs": [{name, type, optional, …}], "outputs": [{name, type, list}]}, the inputs
    in the order of the frontend's widgets.
    """
    return {name: _row(info) for name, info in object_info.items()}


def _row(info: dict[str, Any]) -> dict[str, Any]:
    inputs = []
    for part in ("required", "optional"):
        for name in info["input_order"].get(part, []):
            kind, *rest = info["input"][part][name]
            options = rest[0] if rest else {}
            row = {"name": name, "type": "COMBO" if isinstance(kind, list) else kind}
            kept = {key: options[key] for key in KEPT if options.get(key) is not None}
            inputs.append({**row, "optional": part == "optional", **kept})
    outputs = zip(info["output_name"], info["output"], info["output_is_list"], strict=True)
    return {
        "inputs": inputs,
        "outputs": [{"name": name, "type": kind, "list": many} for name, kind, many in outputs],
    }


def widget_values(node: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """Values by widget; the values of "control after generate" are left out.

    Fails where a widget has no value, or a value no widget: then all that follow are shifted.
    """
    values = list(node.get("widgets_values") or [])
    named = {}
    for part in row["inputs"]:
        if part["type"] not in WIDGETS:
            continue
        assert values, f"{node['type']} has no value for {part['name']}"
        named[part["name"]] = values.pop(0)
        if part.get("control_after_generate", part["name"] in ("seed", "noise_seed")):
            assert values.pop(0) in ("fixed", "increment", "decrement", "randomize")
    assert not values, f"{node['type']} has values without a widget: {values}"
    return named


def to_prompt(graph: dict[str, Any], table: Table) -> dict[str, Any]:
    """The graph in the form that the server queues, as the frontend converts it."""
    links = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    prompt = {}
    for node in graph["nodes"]:
        if node["type"] in NOTES:
            continue
        linked = {
            slot["name"]: links[slot["link"]] for slot in node["inputs"] if slot["link"] is not None
        }
        inputs = {**widget_values(node, table[node["type"]]), **linked}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def attempt_of(name: str) -> int:
    """A value of a train node's `attempt` for a name: another name alone starts no new run."""
    return crc32(name.encode()) % 1_000_000
