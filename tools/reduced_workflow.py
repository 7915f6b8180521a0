"""The miniature's workflow, reduced so that it trains and draws in a minute on a CPU."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from .comfyui import ROOT
from .editor import Editor

WORKFLOW = ROOT / "workflows" / "miniature.json"
LORA = "Train lora-r1"  # title of a train node
ROWS = "base\nlora-r1 = adapter_3"  # that node is connected to the Matrix' adapter_3

SMALL: dict[str, dict[str, Any]] = {
    "Likeness_Subject": {"resolution": 64},
    "Likeness_ClassImages": {"count": 2, "steps": 1},
    "Likeness_TrainLoRA": {"optimizer": "adamw"},
    "Likeness_PromptSet": {"prompts": "study"},
    "Likeness_Matrix": {"adapters": ROWS, "with_pose": "without", "pose_rows": ""},
    "KSampler": {"steps": 2},
}

TRAIN_NODES = ("Likeness_TrainDreamBooth", "Likeness_TrainLoRA")
DISPLAY_NODES = ("PreviewAny", "LossGraphNode")

Graph = dict[str, Any]


def reduced(graph: Graph, kept: Collection[str] = (LORA,)) -> Graph:
    """The graph with only those train nodes whose titles are in `kept`.

    Nodes that display the removed ones' outputs, or set their options, are removed too.
    """
    removed = {
        node["id"]
        for node in graph["nodes"]
        if node["type"] in TRAIN_NODES and node.get("title") not in kept
    }
    options = {node["id"] for node in graph["nodes"] if node["type"] == "Likeness_TrainOptions"}
    needed = {link[1] for link in graph["links"] if link[3] not in removed}
    removed |= options - needed
    fed = {link[3] for link in graph["links"] if link[1] in removed}
    shown = {node["id"] for node in graph["nodes"] if node["type"] in DISPLAY_NODES}
    return without(graph, removed | (fed & shown))


def without(graph: Graph, removed: Collection[int]) -> Graph:
    """The graph without the nodes with these ids and their links."""
    links = [link for link in graph["links"] if not {link[1], link[3]} & {*removed}]
    numbers = {link[0] for link in links}
    nodes = []
    for node in graph["nodes"]:
        if node["id"] in removed:
            continue
        inputs = [
            {**slot, "link": slot["link"] if slot["link"] in numbers else None}
            for slot in node["inputs"]
        ]
        outputs = [
            {**slot, "links": [number for number in slot["links"] or () if number in numbers]}
            for slot in node["outputs"]
        ]
        nodes.append({**node, "inputs": inputs, "outputs": outputs})
    return {**graph, "nodes": nodes, "links": links}


def load_reduced(
    editor: Editor, kept: Collection[str] = (LORA,), **widgets: dict[str, Any]
) -> None:
    """Loads the reduced workflow; `widgets` override values, as {node type: {widget: value}}."""
    graph = reduced(json.loads(WORKFLOW.read_text(encoding="utf-8")), kept)
    editor.load(graph)
    present = {node["type"] for node in graph["nodes"]}
    for kind in present & {*SMALL, *widgets}:
        editor.set_widgets(kind, **{**SMALL.get(kind, {}), **widgets.get(kind, {})})
