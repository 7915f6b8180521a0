"""Which part of a graph draws a cell, what decides its image, and how it is copied."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from likeness.comparison.errors import ComparisonError

ROOT = Path(__file__).resolve().parents[2]
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))

ADAPTER, PROMPT, SEED = 0, 1, 2


@pytest.fixture(scope="module")
def cells():
    STUB["install"]()
    from likeness.nodes import cells

    return cells


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def drawing(**changes):
    """A checkpoint, an adapter on it, a prompt, a sampler; the image is node 5."""
    return {
        "m": node("Matrix", text="base"),
        "1": node("Checkpoint", name="base.safetensors"),
        "2": node("Adapter", model=["1", 0], adapter=["m", ADAPTER], strength=1.0),
        "3": node("Encode", clip=["1", 1], text=["m", PROMPT]),
        "4": node("Sampler", model=["2", 0], positive=["3", 0], seed=["m", SEED], steps=35),
        "5": node("Decode", samples=["4", 0], vae=["1", 2]),
        **changes,
    }


def graph_of(cells, nodes, image=("5", 0), matrix="m"):
    return cells.read_cell_graph(nodes.__getitem__, list(image), matrix)


def digests(cells, nodes, *values, digest_files=lambda text: []):
    return cells.cell_digests(graph_of(cells, nodes), values, digest_files)


def test_only_what_depends_on_the_matrix_is_of_the_cell(cells):
    graph = graph_of(cells, drawing())
    assert set(graph.nodes) == {"1", "2", "3", "4", "5"}
    assert graph.uses == {
        "1": set(),
        "2": {ADAPTER},
        "3": {PROMPT},
        "4": {ADAPTER, PROMPT, SEED},
        "5": {ADAPTER, PROMPT, SEED},
    }
    order = list(graph.nodes)
    assert order.index("1") < order.index("2") < order.index("4") < order.index("5")


@pytest.mark.parametrize(
    ("image", "matrix", "message"),
    [
        (("m", 0), "m", "wired straight"),
        (("1", 0), "m", "does not depend"),
        (("5", 0), "other", "different Matrix"),
    ],
)
def test_an_image_of_no_or_another_matrix_is_an_error(cells, image, matrix, message):
    nodes = drawing(other=node("Matrix", text="other"))
    with pytest.raises(ComparisonError, match=message):
        graph_of(cells, nodes, image, matrix)


CELL = ("a.safetensors", "on the beach", 5)


@pytest.mark.parametrize(
    "other",
    [
        ("b.safetensors", "on the beach", 5),
        ("a.safetensors", "in the rain", 5),
        ("a.safetensors", "on the beach", 6),
    ],
)
def test_each_value_of_the_cell_decides_its_digest(cells, other):
    one, two, again = digests(cells, drawing(), CELL, other, CELL)
    assert one == again != two


@pytest.mark.parametrize(
    "changed",
    [
        {"4": node("Sampler", model=["2", 0], positive=["3", 0], seed=["m", SEED], steps=36)},
        {"4": node("Other", model=["2", 0], positive=["3", 0], seed=["m", SEED], steps=35)},
        {"1": node("Checkpoint", name="other.safetensors")},
        {"5": node("Decode", samples=["4", 1], vae=["1", 2])},
        {"3": node("Encode", clip=["1", 1], text=["m", ADAPTER])},
    ],
)
def test_each_node_and_widget_decides_it_too(cells, changed):
    assert digests(cells, drawing(), CELL) != digests(cells, drawing(**changed), CELL)


def test_ids_and_what_is_beside_the_graph_decide_nothing(cells):
    def name(key):
        return key if key == "m" else f"n{key}"

    def link(value):
        return [name(value[0]), value[1]] if isinstance(value, list) else value

    renamed = {
        name(key): {
            "class_type": value["class_type"],
            "inputs": {part: link(given) for part, given in value["inputs"].items()},
            "_meta": {"title": "mine"},
        }
        for key, value in drawing().items()
    }
    renamed["beside"] = node("Note", text="!")
    graph = graph_of(cells, renamed, ("n5", 0))
    assert cells.cell_digests(graph, [CELL], lambda text: []) == digests(cells, drawing(), CELL)


def test_the_content_of_named_files_decides_it(cells):
    def digest_files(content):
        return lambda text: [content] if text in ("a.safetensors", "base.safetensors") else []

    one, two = (
        digests(cells, drawing(), CELL, digest_files=digest_files(content)) for content in "xy"
    )
    assert one != two


class Builder:
    """Collects nodes as ComfyUI's GraphBuilder does."""

    def __init__(self):
        self.nodes = {}

    def node(self, kind):
        copy = SimpleNamespace(id=f"c{len(self.nodes) + 1}", kind=kind, inputs={}, shown=None)
        copy.set_input = copy.inputs.__setitem__
        copy.set_override_display_id = lambda value: setattr(copy, "shown", value)
        self.nodes[copy.id] = copy
        return copy


def test_copies_are_made_once_for_equal_values_and_link_past_the_matrix(cells):
    graph, builder, copies = graph_of(cells, drawing()), Builder(), {}
    for values in (CELL, ("a.safetensors", "in the rain", 5)):
        cells.copy_nodes(
            graph, values, builder, copies, lambda uses: True, lambda out, v=values: v[out]
        )
    kinds = [copy.kind for copy in builder.nodes.values()]
    assert sorted(kinds) == ["Adapter", *["Decode"] * 2, *["Encode"] * 2, *["Sampler"] * 2]
    by_kind = {copy.kind: copy for copy in builder.nodes.values()}  # the last of each
    assert by_kind["Adapter"].inputs == {
        "model": ["1", 0],
        "adapter": "a.safetensors",
        "strength": 1.0,
    }
    assert by_kind["Sampler"].inputs == {
        "model": [by_kind["Adapter"].id, 0],
        "positive": [by_kind["Encode"].id, 0],
        "seed": 5,
        "steps": 35,
    }
    assert by_kind["Encode"].inputs["text"] == "in the rain"
    assert {copy.shown for copy in builder.nodes.values()} == {"2", "3", "4", "5"}


def test_a_part_of_the_copies_can_be_made_first(cells):
    graph, builder, copies = graph_of(cells, drawing()), Builder(), {}
    cells.copy_nodes(graph, CELL, builder, copies, {ADAPTER}.issuperset, CELL.__getitem__)
    assert [copy.kind for copy in builder.nodes.values()] == ["Adapter"]
    cells.copy_nodes(graph, CELL, builder, copies, lambda uses: True, CELL.__getitem__)
    assert [copy.kind for copy in builder.nodes.values()].count("Adapter") == 1


def test_what_cells_share_is_what_is_not_copied_for_each(cells):
    graph, copies = graph_of(cells, drawing()), {}

    def links(asked=lambda kind, name: True):
        return sorted(cells.shared_links(graph, CELL, copies, asked))

    assert links() == [["1", 0], ["1", 1], ["1", 2]]
    assert links(lambda kind, name: name != "vae") == [["1", 0], ["1", 1]]
    cells.copy_nodes(graph, CELL, Builder(), copies, {ADAPTER}.issuperset, CELL.__getitem__)
    assert links() == [["1", 0], ["1", 1], ["1", 2], ["c1", 0]]


@pytest.mark.parametrize("kind", ["Likeness_TrainLoRA", "Likeness_TrainDreamBooth"])
def test_an_adapter_that_is_trained_past_the_matrix_is_refused(cells, kind):
    trained = node("Adapter", model=["1", 0], adapter=["t", 0], strength=1.0)
    nodes = drawing(**{"2": trained, "t": node(kind, steps=800)})
    with pytest.raises(ComparisonError, match=f"{kind} does not go through the Matrix"):
        graph_of(cells, nodes)
    matrix = node("Matrix", text="base", adapter_1=["t", 0])
    graph_of(cells, drawing(m=matrix, t=node(kind, steps=800)))  # behind the Matrix
