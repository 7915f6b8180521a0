"""Matrix's button that adds rows: a menu of Load Adapter's files, newest first."""

from __future__ import annotations

import os

import pytest
from likeness.tools.editor import EMPTY

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

OLD, NEW = "older than all.safetensors", "newer than all.safetensors"
MATRIX = "Likeness_Matrix"
# The rows of the first Matrix, also in a subgraph, and on the nodes around it.
TEXTS = """
() => [app.rootGraph, ...app.rootGraph.subgraphs.values()]
    .flatMap(({ nodes }) => nodes)
    .flatMap(({ widgets }) => widgets ?? [])
    .filter(({ name }) => name === "adapters")
    .map(({ value }) => value)
"""
CAPTURE = """
() => {
    const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker
    if (tracker.captureCanvasState) tracker.captureCanvasState()
    else tracker.checkState()  // as ComfyUI 0.8.0's frontend calls it
}
"""
ENCLOSE = """
(id) => {
    const { subgraph, node } = app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)]))
    const [inner] = subgraph.nodes
    const slot = inner.inputs.findIndex((input) => input.name === "adapters")
    subgraph.addInput("adapters", "STRING").connect(inner.inputs[slot], inner)
    return node.id
}
"""
OPEN = """
(id) => {
    const around = app.graph.getNodeById(id)
    app.canvas.openSubgraph(around.subgraph, around)
    return around.subgraph.nodes[0].id
}
"""
WIRE = """
(id) => {
    const text = LiteGraph.createNode("PrimitiveStringMultiline")
    app.graph.add(text)
    const matrix = app.graph.getNodeById(id)
    text.connect(0, matrix, matrix.inputs.findIndex((input) => input.name === "adapters"))
}
"""


@pytest.fixture(scope="module")
def files(server):
    """Twenty LoRAs, the last two the oldest and the newest of them."""
    folder = server.home / "output" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"lora-{number:02}.safetensors" for number in range(18)]
    for name in (*names, OLD, NEW):
        (folder / name).write_bytes(b"")
        seconds = {OLD: 1000, NEW: 4e9}.get(name, 2e9)
        os.utime(folder / name, (seconds, seconds))
    yield names
    for name in (*names, OLD, NEW):
        (folder / name).unlink()


@pytest.fixture(params=[False, True], ids=["classic", "vue"])
def rendered(request, tab, no_errors, files):
    """The editor with an empty canvas, in each renderer."""
    with tab(Comfy__VueNodes__Enabled=request.param) as opened, no_errors(opened) as editor:
        editor.load(EMPTY)
        yield editor


def open_menu(editor):
    editor.page.locator(".lk-panel:visible").get_by_role("button", name="Add row …").click()
    menu = editor.page.get_by_role("menu", name="Add a row")
    menu.wait_for()
    return menu


def test_a_row_is_added_by_a_click_and_undone_by_one_step(rendered, show, expect):
    number = rendered.add(MATRIX)
    show(rendered, number)
    before = rendered.saved()["nodes"][0]["widgets_values"]
    rendered.page.evaluate(CAPTURE)
    menu = open_menu(rendered)
    items = menu.get_by_role("menuitem")
    assert items.all_inner_texts()[:2] == ["base", NEW]
    assert items.all_inner_texts().index(OLD) > 18
    expect(items.first).to_be_disabled()  # a row already
    items.nth(1).click()
    expect(menu).to_have_count(0)
    text = f"base\n{NEW}"
    assert rendered.page.evaluate(TEXTS) == [text]
    expect(rendered.page.locator("textarea:visible").first).to_have_value(text)
    saved = rendered.saved()["nodes"][0]["widgets_values"]
    assert saved[0] == text and saved[1:] == before[1:], "no value has moved"
    expect(open_menu(rendered).get_by_role("menuitem", name=NEW)).to_be_disabled()
    rendered.page.keyboard.press("Escape")
    rendered.page.mouse.click(640, 790)
    rendered.page.keyboard.press("Control+z")
    rendered.page.wait_for_function(f"() => ({TEXTS})()[0] === 'base'")


def test_files_are_filtered_and_chosen_with_the_keyboard(rendered, show, expect):
    show(rendered, rendered.add(MATRIX))
    menu = open_menu(rendered)
    items = menu.get_by_role("menuitem")
    filter_box = rendered.page.get_by_label("Filter the files")
    expect(filter_box).to_be_focused()
    rendered.page.keyboard.type("than OLD")
    expect(items).to_have_count(1)
    rendered.page.keyboard.type("x")
    expect(items).to_have_count(0)
    expect(rendered.page.get_by_text("Nothing matches.")).to_be_visible()
    filter_box.fill("lora-1")
    expect(items).to_have_count(8)
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "ArrowUp"):
        rendered.page.keyboard.press(key)
    expect(items.last).to_be_focused()
    filter_box.fill("older")
    filter_box.press("Enter")
    expect(menu).to_have_count(0)
    assert rendered.page.evaluate(TEXTS) == [f"base\n{OLD}"]


def test_a_file_that_is_new_since_the_page_was_loaded_is_offered(editor, files, server, show):
    show(editor, editor.add(MATRIX))
    late = server.home / "output" / "loras" / "late.safetensors"
    late.write_bytes(b"")
    os.utime(late, (4.1e9, 4.1e9))
    try:
        assert open_menu(editor).get_by_role("menuitem").nth(1).inner_text() == late.name
    finally:
        editor.page.keyboard.press("Escape")
        late.unlink()


def test_rows_shown_on_a_subgraphs_node_are_added_there_too(rendered, show, expect):
    around = rendered.page.evaluate(ENCLOSE, rendered.add(MATRIX))
    inner = rendered.page.evaluate(OPEN, around)
    box = rendered.page.evaluate(
        """(id) => {
            const { pos: [x, y], size: [w, h] } = app.canvas.graph.getNodeById(id)
            return [x, y - LiteGraph.NODE_TITLE_HEIGHT, x + w, y + h]
        }""",
        inner,
    )
    rendered.zoom_to(box, 110, 1)
    open_menu(rendered).get_by_role("menuitem", name=NEW).click()
    assert set(rendered.page.evaluate(TEXTS)) == {f"base\n{NEW}"}
    expect(open_menu(rendered).get_by_role("menuitem", name=NEW)).to_be_disabled()
    rendered.page.keyboard.press("Escape")


def test_rows_that_another_node_sets_cannot_be_added_to(editor, show, expect):
    number = editor.add(MATRIX)
    editor.page.evaluate(WIRE, number)
    show(editor, number)
    (item,) = open_menu(editor).get_by_role("menuitem").all()
    expect(item).to_be_disabled()
    expect(item).to_have_text("The rows are set in another node.")
    editor.page.keyboard.press("Escape")


def test_a_server_that_does_not_answer_is_said(editor, show, expect):
    show(editor, editor.add(MATRIX))
    editor.page.route("**/object_info/*", lambda route: route.abort())
    (item,) = open_menu(editor).get_by_role("menuitem").all()
    expect(item).to_contain_text("The files cannot be listed.")
    editor.page.unroute("**/object_info/*")
    editor.page.keyboard.press("Escape")
    editor.page.route("**/experiment/models/*", lambda route: route.fulfill(status=404))
    items = open_menu(editor).get_by_role("menuitem")
    expect(items.nth(1)).to_be_enabled()
    editor.page.keyboard.press("Escape")
    editor.page.unroute("**/experiment/models/*")
    editor.errors.clear()  # Chromium logs the requests that failed
