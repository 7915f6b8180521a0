"""Serialises a page as ComfyUI's frontend saves it, in litegraph's format, version 0.4.

Names, types and order of sockets and widgets come from the stored schemas in `tests/golden`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .graph import ROOT, SCHEMAS, WIDGETS, Model, Node, Note, Page, Socket, has_control
from .layout import layout

NOTE_COLOURS = {"color": "#432", "bgcolor": "#653"}
CORE_VERSION = "0.33.0"  # of tests/golden/core_nodes.json
OUR_VERSION = next(
    line.split('"')[1]
    for line in (ROOT / "pyproject.toml").read_text("utf-8").splitlines()
    if line.startswith("version")
)


def saved(page: Page) -> dict[str, Any]:
    """The graph as the frontend saves it."""
    nodes = page.nodes()
    numbers = {node: number for number, node in enumerate(nodes, start=1)}
    links = list(_links(nodes, numbers))
    places, groups = layout(page)
    order = _order(nodes)
    return {
        "revision": 0,
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": [
            _saved_node(node, numbers[node], places[node], order.index(node), links)
            for node in nodes
        ],
        "links": links,
        "groups": groups,
        "config": {},
        "extra": {"ds": {"scale": 0.6, "offset": [500, 150]}},
        "version": 0.4,
    }


def _order(nodes: Sequence[Node]) -> list[Node]:
    """The nodes in execution order."""
    done: dict[Node, None] = {}

    def visit(node: Node) -> None:
        for value in node.given.values():
            if isinstance(value, Socket):
                visit(value.node)
        done[node] = None

    for node in nodes:
        visit(node)
    return list(done)


def _slots(node: Node) -> list[dict[str, Any]]:
    """The inputs that are sockets, followed by connected widgets."""
    if isinstance(node, Note):
        return []
    inputs = SCHEMAS[node.kind]["inputs"]
    sockets = [part for part in inputs if part["type"] not in WIDGETS]
    linked = [p for p in inputs if p["type"] in WIDGETS and isinstance(_of(node, p), Socket)]
    return [*sockets, *linked]


def _of(node: Node, part: dict[str, Any]) -> Any:
    return node.given.get(part["name"])


def _links(nodes: Sequence[Node], numbers: dict[Node, int]) -> Iterator[list[Any]]:
    """``[link, from node, its output, to node, its input, type]`` of each connection."""
    count = 0
    for target in nodes:
        for slot, part in enumerate(_slots(target)):
            source = _of(target, part)
            if isinstance(source, Socket):
                count += 1
                kind = SCHEMAS[source.node.kind]["outputs"][source.index]["type"]
                yield [count, numbers[source.node], source.index, numbers[target], slot, kind]


def _saved_node(
    node: Node, number: int, place: tuple[int, int], order: int, links: list[list[Any]]
) -> dict[str, Any]:
    incoming = {link[4]: link[0] for link in links if link[3] == number}
    outgoing = [[k[0] for k in links if k[1:3] == [number, n]] for n in range(_outputs(node))]
    return {
        "id": number,
        "type": node.kind,
        "pos": list(place),
        "size": list(node.size()),
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [_saved_input(p, incoming.get(n)) for n, p in enumerate(_slots(node))],
        "outputs": [_saved_output(node, n, ends) for n, ends in enumerate(outgoing)],
        **({"title": node.title} if node.title else {}),
        "properties": _properties(node),
        "widgets_values": _values(node),
        **(NOTE_COLOURS if isinstance(node, Note) else {}),
    }


def _outputs(node: Node) -> int:
    return 0 if isinstance(node, Note) else len(SCHEMAS[node.kind]["outputs"])


def _saved_input(part: dict[str, Any], link: int | None) -> dict[str, Any]:
    slot = {"name": part["name"], "type": part["type"], "link": link}
    if part["type"] in WIDGETS:
        slot["widget"] = {"name": part["name"]}
    elif part["optional"]:
        slot["shape"] = 7
    return slot


def _saved_output(node: Node, index: int, links: list[int]) -> dict[str, Any]:
    row = SCHEMAS[node.kind]["outputs"][index]
    slot = {"name": row["name"], "type": row["type"], "links": links}
    return {**slot, "shape": 6} if row["list"] else slot


def _values(node: Node) -> list[Any]:
    """The widgets' values in the frontend's order."""
    if isinstance(node, Note):
        return [node.text]
    values: list[Any] = []
    for part in SCHEMAS[node.kind]["inputs"]:
        if part["type"] not in WIDGETS:
            continue
        value = _of(node, part)
        if isinstance(value, Model):
            value = value.name
        elif value is None or isinstance(value, Socket):
            value = part.get("default", "")
        values += [value, "fixed"] if has_control(part) else [value]
    return values


def _properties(node: Node) -> dict[str, Any]:
    if isinstance(node, Note):
        return {}
    ours = node.kind.startswith("Likeness_")
    pack, version = ("comfyui-likeness", OUR_VERSION) if ours else ("comfy-core", CORE_VERSION)
    models = [
        {"name": model.name, "url": model.url, "directory": model.folder}
        for model in node.given.values()
        if isinstance(model, Model) and model.url
    ]
    return {
        "Node name for S&R": node.kind,
        "cnr_id": pack,
        "ver": version,
        **({"models": models} if models else {}),
    }
