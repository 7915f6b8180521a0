"""What a comparison shows on nodes at both sides of a subgraph's border."""

from __future__ import annotations

import pytest
from filelock import FileLock
from likeness.tools.editor import EMPTY
from likeness.tools.fixtures import event, step, write_run
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

JOIN = """
([poses, matrix]) => {
    const [from, to] = [poses, matrix].map((id) => app.graph.getNodeById(id))
    from.connect(0, to, to.inputs.findIndex((input) => input.name === "poses"))
}
"""
# Puts a node into a subgraph; the subgraph node's id, and the node's own inside of it.
ENCLOSE = """
(id) => {
    const { subgraph, node } = app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)]))
    return [node.id, subgraph.nodes[0].id].join(":")
}
"""
# Opens a subgraph; the box of its first node.
OPEN = """
(id) => {
    const around = app.graph.getNodeById(Number(id))
    const { subgraph } = around
    app.canvas.openSubgraph(subgraph, around)
    const { pos: [x, y], size: [width, height] } = subgraph.nodes[0]
    return [x, y - LiteGraph.NODE_TITLE_HEIGHT, x + width, y + height]
}
"""
# Shows the first node's folder widget on the subgraph node around it.
PROMOTE = """
(id) => {
    const { subgraph } = app.graph.getNodeById(Number(id))
    const [node] = subgraph.nodes
    const folder = node.inputs.findIndex((input) => input.name === "folder")
    subgraph.addInput("folder", "COMBO").connect(node.inputs[folder], node)
}
"""
# Chooses a folder on the subgraph node.
CHOOSE = """
([id, folder]) => {
    app.canvas.setGraph(app.rootGraph)
    const node = app.graph.getNodeById(Number(id))
    const widget = node.widgets.find((one) => one.name === "folder")
    widget.value = folder
    widget.callback?.(folder)
}
"""
INSET = 110  # pixels that ComfyUI's bars need on each side
POSES = "() => app.graph.nodes.map((one) => one.widgets.find((w) => w.name === 'poses').value)"
CAPTURE = """
() => {
    const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker
    if (tracker.captureCanvasState) tracker.captureCanvasState()
    else tracker.checkState()  // as ComfyUI 0.8.0's frontend calls it
}
"""
GOT = "() => [...document.querySelectorAll('.lk-got')].map((got) => got.textContent)"


@pytest.fixture
def pair(editor):
    """A Pose Set that is wired to a Matrix, by their ids."""
    ids = editor.add("Likeness_PoseSet"), editor.add("Likeness_Matrix")
    editor.page.evaluate(JOIN, list(ids))
    return ids


def told(editor, matrix, wait_for, chosen):
    """Says as the server does which column of a comparison got which pose, until it is shown."""
    value = {"kitchen": chosen}
    editor.pin(matrix, "poses", value)
    wait_for(editor, lambda: "kitchen" in editor.page.evaluate(GOT), 10)


def test_a_pose_set_shows_what_its_matrix_in_a_subgraph_chose(editor, pair, wait_for):
    _, matrix = pair
    told(editor, editor.page.evaluate(ENCLOSE, matrix), wait_for, "tree")


def test_a_pose_set_in_a_subgraph_shows_what_the_matrix_outside_chose(editor, pair, wait_for):
    poses, matrix = pair
    inner = editor.page.evaluate(ENCLOSE, poses)
    subgraph = inner.split(":")[0]
    editor.page.evaluate(OPEN, subgraph)
    told(editor, matrix, wait_for, "tree")


WIRE = """
(id) => {
    const text = LiteGraph.createNode("PrimitiveString")
    app.graph.add(text)
    const poses = app.graph.getNodeById(id)
    text.connect(0, poses, poses.inputs.findIndex((input) => input.name === "poses"))
    return text.id
}
"""


def test_poses_that_another_node_chooses_are_not_clicked(editor, show, expect):
    number = editor.add("Likeness_PoseSet")
    show(editor, number)
    text = editor.page.evaluate(WIRE, number)
    picker = editor.page.locator(".lk-picker:visible")
    expect(picker.locator(".lk-poses-text")).to_have_text("Another node chooses the poses.")
    for card in picker.locator(".lk-pose").all():
        expect(card).to_be_disabled()
    editor.page.evaluate("(id) => app.graph.remove(app.graph.getNodeById(id))", text)
    expect(picker.locator(".lk-pose").first).to_be_enabled()


START = [event("stage", name="train", done=0, total=0), *(step(n, 10) for n in (1, 2, 3))]
SPREAD = """
() => {
    const all = [app.rootGraph, ...app.rootGraph.subgraphs.values()].flatMap((one) => one.nodes)
    return all.map((node) => node.comfyClass ?? node.type)
}
"""


@pytest.fixture
def run(server, request):
    """A run that is being trained; its folder."""
    name = f"{request.node.name}"[:50].replace("test_", "").rstrip("_")
    folder = write_run(server.home / "output", name, START)
    with FileLock(folder / "lock"):
        yield folder


def pinned(editor, number, run):
    """Tells the node of the run, and lets the server tell it again when it is asked."""
    shown = {str(number): {"run": run.name}}
    editor.page.route("**/likeness/board*", lambda route: route.fulfill(json=shown))
    value = {"workflow": "", "node": str(number), "kind": "run", "value": run.name}
    editor.tell("likeness.board", value)


@pytest.fixture
def train(editor, run):
    number = editor.add("Likeness_TrainLoRA")
    pinned(editor, number, run)
    yield number
    editor.page.unroute("**/likeness/board*")


def panels_of(editor):
    """How often a second the run's panels read."""
    asked = []
    editor.page.on("request", lambda one: asked.append(one.url))
    editor.page.wait_for_timeout(3000)
    return sum("/likeness/runs/" in url for url in asked) / 3


def test_a_train_node_that_is_converted_to_a_subgraph_keeps_its_panel(editor, train, show, expect):
    show(editor, train)
    count = editor.page.locator(".lk-training:visible .lk-count")
    expect(count).to_have_text("3 of 10")
    subgraph = editor.page.evaluate(ENCLOSE, train).split(":")[0]
    editor.zoom_to(editor.page.evaluate(OPEN, subgraph), INSET, 1)
    expect(count).to_have_text("3 of 10")


def test_panels_in_subgraphs_stop_reading_when_the_workflow_is_loaded_again(
    editor, train, wait_for
):
    editor.page.evaluate(ENCLOSE, train)
    for _ in range(4):
        editor.load(editor.saved())
    assert "Likeness_TrainLoRA" in editor.page.evaluate(SPREAD)
    editor.page.wait_for_timeout(1500)
    assert 0 < panels_of(editor) < 2
    editor.load(EMPTY)
    editor.page.wait_for_timeout(1500)
    assert panels_of(editor) == 0


def test_a_folder_that_is_shown_on_its_subgraphs_node_is_read(editor, server, expect):
    for folder, count in (("promoted", 1), ("promoted too", 2)):
        (server.home / "input" / folder).mkdir()
        for number in range(count):
            noise = Image.effect_noise((96, 96), 60).convert("RGB")
            noise.save(server.home / "input" / folder / f"{number}.png")
    number = editor.add("Likeness_Subject", (380, 640))
    editor.set_widgets("Likeness_Subject", folder="promoted", resolution=64)
    subgraph = editor.page.evaluate(ENCLOSE, number).split(":")[0]
    editor.page.evaluate(PROMOTE, subgraph)
    editor.zoom_to(editor.page.evaluate(OPEN, subgraph), INSET, 1)
    photos = editor.page.locator(".lk-subject:visible .lk-photo")
    expect(photos).to_have_count(1)
    editor.page.evaluate(CHOOSE, [subgraph, "promoted too"])
    editor.zoom_to(editor.page.evaluate(OPEN, subgraph), INSET, 1)
    expect(photos).to_have_count(2)


def test_undo_takes_a_click_on_a_pose_back_and_nothing_else(editor, show):
    show(editor, editor.add("Likeness_PoseSet"))
    before = editor.page.evaluate(POSES)
    editor.page.evaluate(CAPTURE)
    editor.page.locator(".lk-pose:visible").nth(1).click()
    assert editor.page.evaluate(POSES) == ["tree, goddess, lotus"] != before
    editor.page.keyboard.press("Control+z")
    editor.page.wait_for_function(f"(before) => ({POSES})()[0] === before[0]", arg=before)
