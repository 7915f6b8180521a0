"""What the tools that look at ComfyUI's editor do without one."""

from __future__ import annotations

import json

import pytest
from likeness.tools.fixtures import lines, step
from likeness.tools.images import spread
from likeness.tools.reduced_workflow import LORA, WORKFLOW, reduced
from likeness.tools.workflows.screenshots import NotDrawn, bounds, check_drawn, find_overlaps
from likeness.trainers.events import EventReader
from PIL import Image, ImageDraw

GRAPH = {
    "groups": [],
    "nodes": [
        {"id": 1, "type": "A", "pos": [0, 30], "size": [200, 100]},
        {"id": 2, "type": "B", "title": "Second", "pos": [300, 30], "size": [200, 100]},
    ],
}
COLOURS = {"1": "#333333", "2": "#443322"}


def screenshot(*drawn):
    """The graph at half its size, with the title bars of these nodes."""
    left, top, right, bottom = bounds(GRAPH)
    image = Image.new("RGB", (round((right - left) / 2), round((bottom - top) / 2)), "#141414")
    for node in GRAPH["nodes"]:
        if node["id"] in drawn:
            x, y = (node["pos"][0] - left) / 2, (node["pos"][1] - top) / 2
            bar = [x, y - 15, x + 100, y]
            ImageDraw.Draw(image).rectangle(bar, COLOURS[str(node["id"])])
    return image


def test_an_image_with_all_nodes_passes():
    check_drawn(screenshot(1, 2), bounds(GRAPH), GRAPH, COLOURS)


@pytest.mark.parametrize(("drawn", "missing"), [([1], "Second"), ([2], "A"), ([], "A")])
def test_a_node_that_is_not_on_the_image_is_named(drawn, missing):
    with pytest.raises(NotDrawn, match=missing):
        check_drawn(screenshot(*drawn), bounds(GRAPH), GRAPH, COLOURS)


ON = "A 1 lies on B 2"


@pytest.mark.parametrize(
    ("below", "said"), [(0, []), (30, [ON]), (60, [ON, "B 2 lies on the edge of 'All'"])]
)
def test_what_a_higher_node_would_cover_is_told(below, said):
    group = {"title": "All", "bounding": [-20, -50, 300, 370]}
    nodes = [{**node, "pos": [0, y]} for node, y in zip(GRAPH["nodes"], (30, 180), strict=True)]
    assert find_overlaps({"groups": [group], "nodes": nodes}, below) == said


@pytest.mark.parametrize(
    ("kept", "options"),
    [
        ((), set()),
        ((LORA,), set()),
        ((LORA, "Train tiny"), set()),
        (("Train standard",), {"Options: standard"}),
    ],
)
def test_a_reduced_workflow_has_the_trainings_that_are_kept_and_whole_links(kept, options):
    graph = reduced(json.loads(WORKFLOW.read_text(encoding="utf-8")), kept)
    trains = [n for n in graph["nodes"] if n["type"].startswith("Likeness_Train")]
    assert {node["title"] for node in trains} == set(kept) | options
    nodes = {node["id"]: node for node in graph["nodes"]}
    for number, source, output, target, entry, _ in graph["links"]:
        assert number in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][entry]["link"] == number
    ends = [slot["link"] for node in graph["nodes"] for slot in node["inputs"]]
    assert {end for end in ends if end is not None} == {link[0] for link in graph["links"]}


def test_the_events_for_panels_are_events_of_a_run(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(lines([step(1, 10), step(2, 10, version=2), step(3, 10)]), encoding="utf-8")
    assert [event.data["step"] for event in EventReader(path).new_events()] == [1, 3]


@pytest.mark.parametrize(("count", "wanted"), [(1, 40), (5, 40), (41, 40), (400, 40)])
def test_frames_are_spread_from_the_first_to_the_last(count, wanted):
    chosen = spread(count, wanted)
    assert chosen[0] == 0 and chosen[-1] == count - 1
    assert len(set(chosen)) == len(chosen) == min(count, wanted)
