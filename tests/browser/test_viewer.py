"""The comparison over the whole window: its keys, its focus, and images that come meanwhile."""

from __future__ import annotations

import json
import re
import time

import pytest
from likeness.tools.fixtures import write_comparison, write_scores
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

ROWS = ["base", "one", "two"]
COLUMNS = ["kitchen", "beach", "rain"]
MISSING = 3  # the second model's image of the first prompt
FOCUS = "() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.title"

RESIZE = """
([id, height]) => {
    app.graph.getNodeById(id).setSize([700, height])
    app.canvas.draw(true, true)
}
"""


def draw(row, column):
    return Image.new("RGB", (768, 1024), (80 * row, 80 * column, 90))


@pytest.fixture
def name(server, request):
    """A comparison that lacks an image."""
    name = re.sub(r"\W+", "-", request.node.name.removeprefix("test_"))[:60]
    file = write_comparison(server.home / "output", name, ROWS, COLUMNS, draw) / "viewer.json"
    view = json.loads(file.read_text())
    view["drawn"][MISSING] = 0
    file.write_text(json.dumps(view))
    return name


@pytest.fixture
def number(editor, name, show):
    """A Contact Sheet that shows it."""
    number = editor.add("Likeness_ContactSheet", (420, 420))
    show(editor, number)
    editor.pin(number, "comparison", name)
    return number


@pytest.fixture
def viewer(editor, number):
    """The viewer, open at its grid."""
    editor.page.locator(".lk-comparison:visible").get_by_role("button", name="Open").click()
    editor.page.locator("dialog .lk-cell img").first.wait_for()
    return editor.page.locator("dialog.lk-viewer")


@pytest.fixture
def drawn(editor, number, name):
    """Tells of a cell that was drawn: `drawn(index)`."""

    def tell(index):
        news = {"workflow": "", "node": str(number), "name": name, "finished": False, "line": ""}
        editor.tell("likeness.cells", {**news, "drawn": {str(index): time.time_ns() // 1_000_000}})

    return tell


def test_esc_twice_from_two_images_leads_to_the_grid_and_not_out(editor, viewer, expect):
    keyboard, title = editor.page.keyboard, viewer.locator("h2")
    viewer.locator("[data-index='0']").click(modifiers=["Shift"])
    viewer.locator("[data-index='4']").click()
    expect(title).to_have_text("base | one")
    viewer.get_by_label("Model of B").focus()
    keyboard.press("Escape")
    expect(title).to_have_text("one · beach")
    keyboard.press("Escape")
    expect(viewer.locator(".lk-grid")).to_be_visible()
    keyboard.press("c")
    keyboard.press("Escape")
    expect(viewer.locator(".lk-hint")).to_be_hidden()
    expect(viewer).to_be_visible()
    keyboard.press("Escape")
    expect(viewer).to_be_hidden()


def test_keys_are_heard_when_what_had_the_focus_is_drawn_anew(editor, viewer, drawn, expect):
    page, title = editor.page, viewer.locator("h2")
    viewer.locator("[data-index='0']").click()
    strip = viewer.locator(".lk-model")
    strip.first.focus()
    drawn(0)
    page.wait_for_function(
        "() => document.querySelector('dialog').contains(document.activeElement)"
    )
    page.keyboard.press("ArrowRight")
    expect(title).to_have_text("base · beach")
    viewer.get_by_role("button", name="Download", exact=True).focus()
    page.keyboard.press("c")  # two images have no such button
    expect(title).to_have_text("base | one")
    page.keyboard.press("ArrowRight")
    expect(title).to_have_text("base | one")
    expect(viewer.get_by_label("Prompt of B")).to_have_value("rain")


def test_the_strip_of_models_fills_while_images_are_drawn(editor, viewer, drawn, expect):
    viewer.locator("[data-index='0']").click()
    strip = viewer.locator(".lk-model")
    expect(strip.locator("img")).to_have_count(2)
    strip.nth(2).focus()
    drawn(MISSING)
    expect(strip.locator("img")).to_have_count(3)
    assert editor.page.evaluate(FOCUS) == "two"


def test_an_image_at_its_actual_size_is_moved_by_keys(editor, viewer, expect):
    page, stage = editor.page, viewer.locator(".lk-stage")
    viewer.locator("[data-index='0']").click()
    actual = viewer.get_by_role("button", name="Actual size")
    actual.click()
    expect(actual).to_have_attribute("aria-pressed", "true")
    stage.focus()
    page.keyboard.press("PageDown")
    page.wait_for_function("() => document.querySelector('.lk-stage').scrollTop > 100")
    page.keyboard.press("ArrowUp")
    expect(viewer.locator("h2")).to_have_text("base · kitchen")
    page.keyboard.press("z")
    expect(actual).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("ArrowDown")
    expect(viewer.locator("h2")).to_have_text("one · kitchen")


@pytest.fixture
def asked(editor):
    """What the page asks for by POST; nothing of it reaches the server, and nothing is queued."""
    page, asked = editor.page, []

    def answer(route):
        asked.append(route.request.url)
        route.fulfill(json={})

    page.route("**/draw-again*", answer)
    queue = page.evaluate_handle("() => app.queuePrompt")
    page.evaluate("() => { app.queuePrompt = async () => { window.queued = true; return true } }")
    yield asked
    page.evaluate("(queue) => { app.queuePrompt = queue; delete window.queued }", queue)
    page.unroute("**/draw-again*")


def test_an_image_is_drawn_again_from_its_page(editor, viewer, asked, name, drawn, expect):
    viewer.locator("[data-index='1']").click()
    again = viewer.get_by_role("button", name="Redraw")
    assert "same seed" in again.get_attribute("title")
    again.click()
    expect(viewer.locator(".lk-hint")).to_contain_text("Queued")
    assert asked[0].endswith(f"name={name}&image={name}-0-1")
    assert editor.page.evaluate("() => window.queued")
    drawn(1)
    expect(viewer.locator(".lk-hint")).to_contain_text("was redrawn")
    editor.page.keyboard.press("ArrowRight")
    expect(viewer.locator(".lk-hint")).to_be_hidden()
    viewer.get_by_role("button", name="one").click()
    editor.page.keyboard.press("ArrowLeft")
    editor.page.keyboard.press("ArrowLeft")
    expect(viewer.locator("h2")).to_have_text("one · kitchen")
    expect(again).to_be_disabled()  # it is not drawn yet


def test_the_menu_of_a_cell_closes_by_escape_and_draws_it_again(viewer, asked, editor, expect):
    keyboard, menu = editor.page.keyboard, viewer.get_by_role("menu")
    cell = viewer.locator("[data-index='4']")
    cell.click(button="right")
    expect(menu).to_be_visible()
    keyboard.press("Escape")
    expect(menu).to_have_count(0)
    expect(viewer).to_be_visible()
    assert editor.page.evaluate(FOCUS) == "one, beach"
    cell.click(button="right")
    keyboard.press("ArrowDown")
    keyboard.press("Enter")
    expect(viewer.locator(".lk-hint")).to_contain_text("Queued")
    assert len(asked) == 1 and asked[0].endswith("-1-1")
    cell.click(button="right")
    viewer.locator("h2").click()
    expect(menu).to_have_count(0)
    viewer.locator(f"[data-index='{MISSING}']").click(button="right")
    expect(menu.get_by_role("menuitem", name="Redraw")).to_be_disabled()


def test_scores_that_are_there_are_not_said_to_be_none(editor, server, number, name, expect):
    write_scores(server.home / "output" / "likeness" / "comparisons" / name, ROWS, COLUMNS)
    editor.page.locator(".lk-comparison:visible").get_by_role("button", name="Open").click()
    viewer = editor.page.locator("dialog.lk-viewer")
    measures = viewer.get_by_label("Score shown in the cells")
    expect(measures).to_be_visible()
    assert measures.locator("option").all_inner_texts() == ["scores: off", "subject match (CLIP)"]
    report = viewer.get_by_role("link", name="Report")
    expect(report).to_be_visible()
    with editor.page.expect_popup() as opened:
        report.click()
    expect(opened.value.locator("h1")).to_have_text("the report")
    # Neither a script from elsewhere nor ComfyUI's own page is within its reach.
    assert opened.value.evaluate("() => self.origin") == "null"
    opened.value.close()


def test_cells_that_fit_have_no_scroll_bars(editor, number, expect):
    grid = editor.page.locator(".lk-comparison:visible .lk-grid")
    heights = set()
    for height in range(850, 880):
        editor.page.evaluate(RESIZE, [number, height])
        editor.page.wait_for_timeout(100)
        expect(grid.locator(".lk-cell")).to_have_count(9)
        assert grid.evaluate("(one) => one.scrollHeight <= one.clientHeight"), height
        heights.add(grid.evaluate("(one) => one.clientHeight"))
    assert len(heights) > 6


def test_there_is_nothing_to_download_before_an_image_is_drawn(editor, server, show, expect):
    folder = write_comparison(server.home / "output", "undrawn", ["base"], ["kitchen"], draw)
    view = json.loads((folder / "viewer.json").read_text())
    (folder / "viewer.json").write_text(json.dumps({**view, "drawn": [0]}))
    number = editor.add("Likeness_ContactSheet", (420, 420))
    show(editor, number)
    editor.pin(number, "comparison", folder.name)
    panel = editor.page.locator(".lk-comparison:visible")
    expect(panel.locator(".lk-count")).to_have_text("0 of 1 image")
    panel.get_by_role("button", name="Open").click()
    every = editor.page.get_by_role("button", name=re.compile("Download all"))
    expect(every).to_be_disabled()
    news = {"workflow": "", "node": str(number), "name": folder.name, "finished": False}
    editor.tell("likeness.cells", {**news, "line": "", "drawn": {"0": 1}})
    expect(every).to_be_enabled()
    expect(panel.locator(".lk-count")).to_have_text("1 image")
