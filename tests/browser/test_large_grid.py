"""A comparison of 8 x 12 images of 768 x 1024: only what is on the screen is loaded."""

from __future__ import annotations

import pytest
from likeness.tools.fixtures import write_comparison
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

ROWS = [f"model-{number}" for number in range(8)]
COLUMNS = [f"prompt-{number}" for number in range(12)]
MAX_IMAGES = 70  # of 96: what fits into the window, and one more on each side
MAX_GROWTH = 4e6  # bytes of the page's heap, by scrolling on and on

SCROLL = """
async () => {
    const grid = document.querySelector('dialog .lk-grid')
    const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))
    let most = 0
    for (let top = 0; top < grid.scrollHeight; top += 300)
        for (let left = 0; left < grid.scrollWidth; left += 400) {
            grid.scrollTo(left, top)
            await frame()
            most = Math.max(most, grid.querySelectorAll('img').length)
        }
    return most
}
"""


@pytest.fixture(scope="module")
def large(server):
    """The comparison's name."""
    shade = Image.linear_gradient("L").resize((768, 1024))

    def draw(row, column):
        levels = [Image.new("L", shade.size, value) for value in (30 * row, 20 * column)]
        return Image.merge("RGB", (shade, *levels))

    write_comparison(server.home / "output", "large", ROWS, COLUMNS, draw)
    return "large"


@pytest.fixture
def viewer(editor, large, show):
    """The editor with the viewer open, and the addresses of the images that it asked for."""
    asked = []
    editor.page.on("request", lambda request: asked.append(request.url))
    number = editor.add("Likeness_ContactSheet", (420, 420))
    show(editor, number)
    editor.pin(number, "comparison", large)
    editor.page.locator(".lk-comparison:visible").get_by_role("button", name="Open").click()
    editor.page.locator("dialog .lk-cell img").first.wait_for()
    editor.wait_until_loaded()
    return asked


def thumbnails(asked):
    return {address for address in asked if "thumbnails" in address}


def heap(page):
    """Bytes of live objects in the page."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    return session.send("Runtime.getHeapUsage")["usedSize"]


def test_images_are_loaded_when_they_are_scrolled_to(editor, viewer):
    assert 0 < len(thumbnails(viewer)) <= MAX_IMAGES
    assert editor.page.evaluate(SCROLL) <= MAX_IMAGES
    editor.wait_until_loaded()
    assert len(thumbnails(viewer)) == len(ROWS) * len(COLUMNS)
    whole = [address for address in viewer if "cells" in address and ".png" in address]
    assert not whole, "a grid shows small copies"


def test_scrolling_on_and_on_takes_no_more_memory(editor, viewer):
    editor.page.evaluate(SCROLL)
    before = heap(editor.page)
    for _ in range(3):
        editor.page.evaluate(SCROLL)
    assert heap(editor.page) - before < MAX_GROWTH


def test_the_last_cell_is_reached_by_keys(editor, viewer):
    for key in ("End", "PageDown", "PageDown"):
        editor.page.keyboard.press(key)
    assert editor.page.evaluate("() => document.activeElement.dataset.index") == "95"


FOCUS = (
    "() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.className"
)


def test_the_keyboard_stays_in_the_viewer_when_cells_are_made_anew(editor, viewer, expect):
    page = editor.page
    page.keyboard.press("ArrowRight")
    cell = page.evaluate(FOCUS)
    assert cell.startswith("model-0, prompt-1")
    page.keyboard.press("c")  # marks are drawn anew, and with them the cell
    assert page.evaluate(FOCUS) == cell
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("dialog h2")).to_have_text("model-0 | model-1")


def test_a_list_of_the_page_keeps_the_focus_when_another_cell_is_chosen(editor, viewer, expect):
    page = editor.page
    page.locator("dialog [data-index='0']").click(modifiers=["Shift"])
    page.locator("dialog [data-index='12']").click()
    chosen = page.get_by_label("Model of B")
    chosen.focus()
    for name in ("model-2", "model-3"):
        page.keyboard.press("ArrowDown")
        expect(page.locator("dialog h2")).to_have_text(f"model-0 | {name}")
        assert page.evaluate(FOCUS) == "Model of B"
    page.get_by_label("Swap A and B").click()
    page.keyboard.press("x")
    expect(page.locator("dialog h2")).to_have_text("model-0 | model-3")


def test_the_wheel_takes_the_focused_cell_away_and_keys_still_work(editor, viewer):
    page = editor.page
    page.keyboard.press("ArrowRight")
    page.evaluate("() => document.querySelector('dialog .lk-grid').scrollTo(0, 1e6)")
    page.wait_for_function("() => document.activeElement.classList.contains('lk-grid')")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(FOCUS).startswith("model-0, prompt-2")


def test_tab_leads_to_the_active_cell_that_is_scrolled_away(editor, viewer):
    page = editor.page
    page.keyboard.press("ArrowRight")
    page.locator("dialog").get_by_role("button", name="Close").focus()
    page.evaluate("() => document.querySelector('dialog .lk-grid').scrollTo(0, 1e6)")
    page.wait_for_function("() => !document.querySelector('dialog [data-index=\"1\"]')")
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUS).startswith("model-0, prompt-1")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(FOCUS) == "Close"


def test_a_cell_opens_while_its_scores_are_still_asked_for(editor, viewer, large, expect):
    page = editor.page
    page.evaluate("() => document.querySelector('dialog').close()")
    page.route("**/likeness/comparison?*", lambda route: None)
    page.locator(".lk-comparison:visible .lk-cell").first.click()
    expect(page.locator("dialog h2")).to_have_text("model-0 · prompt-0")
    page.unroute("**/likeness/comparison?*")


@pytest.fixture
def narrow(editor):
    """The window of a phone."""
    before = editor.page.viewport_size
    editor.page.set_viewport_size({"width": 390, "height": 844})
    yield editor.page
    editor.page.set_viewport_size(before)


def test_on_a_phone_the_viewer_can_be_closed_and_says_all(editor, viewer, narrow, expect):
    def is_in_view(locator):
        box = locator.bounding_box()
        return box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] >= 0

    dialog = narrow.locator("dialog")
    for name in ("Close", "Compare two", "Download all"):
        assert is_in_view(dialog.get_by_role("button", name=name)), name
    dialog.locator("[data-index='0']").click()
    image = dialog.locator(".lk-frame").bounding_box()
    assert image["width"] > 200
    details = dialog.get_by_label("About this image")
    details.scroll_into_view_if_needed()
    expect(details.get_by_text("Seed")).to_be_in_viewport()
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
