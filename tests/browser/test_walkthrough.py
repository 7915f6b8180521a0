"""From the template browser to two compared cells, as a user goes."""

from __future__ import annotations

import re
from functools import partial

import pytest
from likeness.tools.editor import PACK
from likeness.tools.reduced_workflow import WORKFLOW, load_reduced

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

NAMES = sorted(path.stem for path in WORKFLOW.parent.glob("*.json"))
SMALLEST = {"width": 64, "height": 64}


@pytest.fixture
def templates(editor):
    """The template browser, open at this pack's workflows."""
    editor.page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    dialog = editor.page.get_by_role("dialog")
    dialog.get_by_text(PACK).first.click()
    dialog.get_by_text("miniature", exact=True).first.wait_for()
    yield dialog
    editor.page.keyboard.press("Escape")


def test_the_template_browser_lists_our_workflows_with_thumbnails(editor, templates, wait_for):
    def has_image(name):
        images = templates.get_by_alt_text(name, exact=True)
        return images.count() and images.first.evaluate("(one) => one.naturalWidth") > 0

    for name in NAMES:
        templates.get_by_text(name, exact=True).first.scroll_into_view_if_needed()
        wait_for(editor, partial(has_image, name))


def test_a_template_opens_with_every_node_known(editor, templates):
    templates.get_by_text("miniature", exact=True).first.click()
    editor.find_node_id("Likeness_Score")
    assert editor.unknown() == []


def test_train_reload_go_on_stop_and_compare(editor, server, show, wait_for, expect):
    page = editor.page
    endless = {"steps": 100_000, "preview_every": 20, "name": "walk"}
    sheet = {"name": "walk"}
    load_reduced(
        editor,
        Likeness_TrainLoRA=endless,
        Likeness_Matrix={**SMALLEST, "seed": 7},
        Likeness_ContactSheet=sheet,
    )
    show(editor, editor.find_node_id("Likeness_TrainLoRA"))
    editor.queue()
    training = page.locator(".lk-training:visible")
    expect(training.locator(".lk-state")).to_have_text(re.compile("^Training"), timeout=90_000)
    wait_for(editor, lambda: step_of(training) > 3)
    expect(training.locator("[aria-label=Previews] img").first).to_be_visible(timeout=90_000)
    before = step_of(training)

    editor.reload()
    # ComfyUI 0.8.0's own page is told of progress before it has a canvas.
    editor.errors = [line for line in editor.errors if "getCanvas: canvas is null" not in line]
    show(editor, editor.find_node_id("Likeness_TrainLoRA"))
    training.wait_for()
    wait_for(editor, lambda: step_of(training) > before)
    expect(training.locator("[aria-label=Previews] img").first).to_be_visible()

    training.get_by_role("button", name="Stop and save").click()
    expect(training.locator(".lk-state")).to_have_text("Stopped and saved", timeout=90_000)
    loras = server.home / "output" / "loras"
    wait_for(editor, lambda: any(loras.glob("walk-*.safetensors")))
    with page.expect_download() as download:
        training.locator(".lk-file a").click()
    (saved,) = loras.glob("walk-*.safetensors")
    assert download.value.path().read_bytes() == saved.read_bytes()

    show(editor, editor.find_node_id("Likeness_ContactSheet"))
    grid = page.locator(".lk-comparison:visible")
    expect(grid.locator(".lk-count")).to_have_text("12 images", timeout=120_000)
    compare_two(page, grid, expect)
    viewer = page.locator("dialog.lk-viewer")
    for _ in range(3):  # to one image, to the grid, out of the viewer
        expect(viewer).to_be_visible()
        page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()

    show(editor, editor.find_node_id("Likeness_TrainLoRA"))
    before = step_of(training)
    training.get_by_role("button", name="Resume").click()
    expect(training.locator(".lk-state")).to_have_text(re.compile("^Training"), timeout=90_000)
    wait_for(editor, lambda: step_of(training) > before)
    training.get_by_role("button", name="Cancel").click()
    training.get_by_role("button", name="Click again to cancel").click()
    expect(training.locator(".lk-state")).to_have_text("Interrupted", timeout=90_000)


def step_of(training) -> int:
    """The step that a panel shows; 0 before there is one."""
    text = training.locator(".lk-count").inner_text() if training.count() else ""
    return int(text.split()[0].replace(",", "")) if text else 0


def compare_two(page, grid, expect):
    """Opens the viewer, compares two cells, and moves the divider."""
    grid.get_by_role("button", name="Open").click()
    viewer = page.locator("dialog.lk-viewer")
    expect(viewer.locator(".lk-cell img")).to_have_count(12)
    viewer.locator("[data-index='0']").click(modifiers=["Shift"])
    viewer.locator("[data-index='6']").click()
    expect(viewer.locator(".lk-layer img")).to_have_count(2)
    expect(viewer.locator("h2")).to_have_text("base | lora-r1")
    loaded = "images => images.every((one) => one.complete && one.naturalWidth === 64)"
    expect(viewer.locator(".lk-layer.above img")).to_be_visible()
    page.wait_for_function(
        f"() => ({loaded})([...document.querySelectorAll('dialog .lk-layer img')])"
    )
    divider = viewer.get_by_role("slider", name="Divider between the two images")
    box = viewer.locator(".lk-frame").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert abs(int(divider.get_attribute("aria-valuenow")) - 25) <= 1
    divider.press("ArrowRight")
    assert abs(int(divider.get_attribute("aria-valuenow")) - 27) <= 1
