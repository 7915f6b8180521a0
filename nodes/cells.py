"""The part of a user's graph that draws one cell of a Matrix: its digest and its copies.

A node is ComfyUI's ``{"class_type": str, "inputs": {name: value}}``, where a value is a constant
or a link ``[node id, output]``. A cell is given by the values of the Matrix's outputs, in order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..comparison.errors import ComparisonError

Node = Mapping[str, Any]
CellValues = tuple[Any, ...]
TRAIN_NODES = frozenset({"Likeness_TrainLoRA", "Likeness_TrainDreamBooth"})
NodeKey = tuple[str, CellValues]  # a node and the values it depends on; equal keys, equal results


def is_link(value: Any) -> bool:
    """Whether an input's value is a link to another node's output, by ComfyUI's rule."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )


@dataclass(frozen=True)
class CellGraph:
    """The nodes upstream of an image, up to but excluding the Matrix and its upstream.

    `nodes` are in topological order. `uses` are the outputs of the Matrix that a node's results
    depend on, directly or indirectly; a node that uses none is the same for all cells.
    """

    matrix: str
    image: tuple[str, int]
    nodes: Mapping[str, Node]
    uses: Mapping[str, frozenset[int]]

    def key(self, node_id: str, values: CellValues) -> NodeKey:
        """Identifies a node's results in a cell."""
        return node_id, tuple(values[output] for output in sorted(self.uses[node_id]))


def read_cell_graph(
    get_node: Callable[[str], Node], image: Sequence[Any], matrix: str
) -> CellGraph:
    """The graph upstream of the link `image`.

    Raises ComparisonError unless it depends on the node `matrix`, and on no other Matrix.
    """
    nodes: dict[str, Node] = {}
    uses: dict[str, frozenset[int]] = {}
    stack = [str(image[0])] if image[0] != matrix else []
    path: set[str] = set()  # nodes on the stack that wait for those above them
    while stack:
        node = get_node(stack[-1])
        links = [value for value in node["inputs"].values() if is_link(value)]
        waiting = [source for source, _ in links if source != matrix and source not in uses]
        if waiting:
            path.add(stack[-1])
            if path.intersection(waiting):
                raise ComparisonError(
                    "The nodes that generate a cell form a loop: remove one of its links."
                )
            stack += waiting
            continue
        node_id = stack.pop()
        path.discard(node_id)
        direct = {int(output) for source, output in links if source == matrix}
        through = (uses[source] for source, _ in links if source != matrix)
        nodes[node_id], uses[node_id] = node, frozenset(direct).union(*through)
    _check(nodes, bool(nodes) and bool(uses[image[0]]), nodes and get_node(matrix)["class_type"])
    return CellGraph(matrix, (str(image[0]), int(image[1])), nodes, uses)


def _check(nodes: Mapping[str, Node], depends: bool, kind: Any) -> None:
    if not nodes:
        raise ComparisonError(
            "The Matrix is wired straight to the Contact Sheet: put the nodes that generate an "
            "image between the two."
        )
    if any(node["class_type"] == kind for node in nodes.values()):
        raise ComparisonError(
            "The image comes from a different Matrix than the one connected: wire the Contact "
            "Sheet's image and matrix from the same one."
        )
    trainers = TRAIN_NODES.intersection(str(node["class_type"]) for node in nodes.values())
    if trainers:
        raise ComparisonError(
            f"The adapter of a {min(trainers)} does not go through the Matrix: after another "
            "training, cells of the old adapter would be reused. Wire its adapter to the Matrix, "
            "and the Matrix's adapter to Load Adapter."
        )
    if not depends:
        raise ComparisonError(
            "The image does not depend on the Matrix: wire its adapter, prompt and seed to the "
            "nodes that generate the image."
        )


def cell_digests(
    graph: CellGraph, cells: Iterable[CellValues], digest_files: Callable[[str], list[str]]
) -> list[str]:
    """The SHA-256 of everything that determines each cell's image: nodes, values and files.

    Args:
        digest_files: digests of the files that a widget's text names, [] if it names none.
    """
    known: dict[NodeKey, str] = {}

    def content(value: Any, values: CellValues) -> Any:
        if is_link(value):
            source, output = value
            if source != graph.matrix:
                return {"from": known[graph.key(source, values)], "output": output}
            value = values[int(output)]
        return {"value": value, "files": digest_files(value) if isinstance(value, str) else []}

    def digest(values: CellValues) -> str:
        for node_id, node in graph.nodes.items():
            key = graph.key(node_id, values)
            if key not in known:
                inputs = {name: content(value, values) for name, value in node["inputs"].items()}
                text = json.dumps([node["class_type"], inputs], sort_keys=True)
                known[key] = hashlib.sha256(text.encode()).hexdigest()
        return known[graph.key(graph.image[0], values)]

    return [
        hashlib.sha256(f"{digest(values)} {graph.image[1]}".encode()).hexdigest()
        for values in cells
    ]


def copy_nodes(
    graph: CellGraph,
    values: CellValues,
    builder: Any,
    copies: dict[NodeKey, str],
    should_copy: Callable[[frozenset[int]], bool],
    wire: Callable[[int], Any],
) -> None:
    """Adds a cell's copies of the nodes that depend on the Matrix to `builder`.

    Args:
        builder: ComfyUI's GraphBuilder.
        copies: ids of existing copies, updated; a node is copied once for equal values.
        should_copy: whether to copy a node, given the Matrix outputs that it depends on.
        wire: the constant or link that replaces an output of the Matrix.
    """

    def rewired(value: Any) -> Any:
        if not is_link(value):
            return value
        source, output = value
        if source == graph.matrix:
            return wire(int(output))
        return [copies[graph.key(source, values)], output] if graph.uses[source] else value

    for node_id, uses in graph.uses.items():
        key = graph.key(node_id, values)
        if uses and should_copy(uses) and key not in copies:
            copy = builder.node(graph.nodes[node_id]["class_type"])
            copy.set_override_display_id(node_id)  # progress shows on the user's own node
            for name, value in graph.nodes[node_id]["inputs"].items():
                copy.set_input(name, rewired(value))
            copies[key] = copy.id


def shared_links(
    graph: CellGraph,
    values: CellValues,
    copies: Mapping[NodeKey, str],
    is_eager: Callable[[str, str], bool],
) -> list[list[Any]]:
    """Links from a cell's nodes to results that it shares with other cells.

    These are results of nodes that do not depend on the Matrix, and of the existing copies.

    Args:
        is_eager: whether a node class always needs an input; lazy inputs may stay unused.
    """
    found: dict[tuple[str, int], None] = {}
    for node_id, uses in graph.uses.items():
        node = graph.nodes[node_id]
        for name, value in node["inputs"].items():
            if not uses or not is_link(value) or value[0] == graph.matrix:
                continue
            source, output = value
            shared = copies.get(graph.key(source, values)) if graph.uses[source] else source
            if shared is not None and is_eager(node["class_type"], name):
                found[shared, output] = None
    return [[source, output] for source, output in found]
