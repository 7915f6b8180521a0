"""What a workflow keeps when it is saved, loaded, and dropped as an image."""

from __future__ import annotations

import json

import pytest
from likeness.tools.editor import EMPTY
from likeness.tools.reduced_workflow import WORKFLOW, load_reduced

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

WORKFLOWS = sorted(WORKFLOW.parent.glob("*.json"))

# Adds our nodes with a value in each widget that is not its default.
CHANGED = """
(types) => {
    const other = (widget) => {
        const { value, options } = widget
        if (typeof value === 'boolean') return !value
        if (typeof value === 'number') return value === options.max ? options.min : options.max
        const values = typeof options.values === 'function' ? options.values() : options.values
        return Array.isArray(values) ? values.at(-1) : `${value} ü <b>\\n"x"`
    }
    for (const type of types) {
        const node = LiteGraph.createNode(type)
        app.graph.add(node)
        for (const widget of node.widgets ?? [])
            if (widget.serialize !== false && widget.type !== 'button') widget.value = other(widget)
    }
}
"""
OURS = """
() => Object.keys(LiteGraph.registered_node_types).filter((type) => type.startsWith('Likeness_'))
"""


def values_of(graph):
    """Widget values by node; some frontends also save what PreviewAny showed last."""
    kinds = {node["id"]: node["type"] for node in graph["nodes"]}
    values = {node["id"]: node.get("widgets_values") or [] for node in graph["nodes"]}
    return {id: (kind, [] if kind == "PreviewAny" else values[id]) for id, kind in kinds.items()}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_saving_and_loading_a_workflow_keeps_every_widget_value(editor, path):
    stored = json.loads(path.read_text(encoding="utf-8"))
    once = editor.load(stored)
    twice = editor.load(once)
    assert values_of(once) == values_of(stored)
    assert values_of(twice) == values_of(once)
    assert len(twice["links"]) == len(stored["links"])


def test_changed_values_of_all_our_nodes_are_kept(editor):
    ours = editor.page.evaluate(OURS)
    editor.page.evaluate(CHANGED, ours)
    before = editor.saved()
    assert {node["type"] for node in before["nodes"]} == set(ours)
    after = editor.load(before)
    assert values_of(after) == values_of(before)
    assert any("<b>" in str(value) for _, values in values_of(after).values() for value in values)


def test_a_sheet_dropped_on_an_empty_canvas_brings_its_graph_back(editor, server, wait_for):
    name = "dropped"
    load_reduced(
        editor,
        kept=(),
        Likeness_Matrix={"adapters": "base\nagain = base", "width": 64, "height": 64},
        Likeness_ContactSheet={"name": name},
    )
    before = editor.saved()
    editor.queue()
    view = f"/likeness/comparison?name={name}"
    wait_for(editor, lambda: (server.get(view).get("view") or {}).get("sheet"), 120)
    sheet = server.get(view)["view"]["sheet"]

    editor.load(EMPTY)
    editor.drop(f"/view?filename={sheet}&subfolder=likeness/comparisons/{name}", sheet)
    editor.page.wait_for_function("(n) => app.graph.nodes.length === n", arg=len(before["nodes"]))
    after = editor.saved()
    assert values_of(after) == values_of(before)
    assert len(after["links"]) == len(before["links"])


def test_loading_a_workflow_does_not_wait_for_a_slow_server(editor):
    editor.page.route("**/likeness/board*", lambda route: None)
    late = "new Promise((done) => setTimeout(() => done(false), 20000))"
    load = "app.loadGraphData(graph).then(() => true)"
    assert editor.page.evaluate(f"(graph) => Promise.race([{load}, {late}])", EMPTY)
    editor.page.unroute("**/likeness/board*")
