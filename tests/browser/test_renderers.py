"""Panels in both of ComfyUI's node renderers and in both palettes."""

from __future__ import annotations

import base64
import io

import pytest
from likeness.tools.editor import EMPTY
from likeness.tools.fixtures import event, step, write_run
from likeness.tools.reduced_workflow import load_reduced
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

# A preview as core shows it when one has come from the server; how many of them a node has.
PREVIEW = """
async (id) => {
    const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0))
    const blob = new Blob([bytes], { type: "image/png" })
    const detail = { blob, nodeId: id, displayNodeId: id, parentNodeId: id, realNodeId: id }
    comfyAPI.api.api.dispatchCustomEvent("b_preview_with_metadata", { ...detail, jobId: "1" })
    app.canvas.draw(true, true)
}
"""
PREVIEWS = """
(id) => {
    const drawn = app.graph.getNodeById(Number(id)).imgs?.length ?? 0
    const shown = [...document.querySelectorAll(`[data-node-id="${id}"] img[src^="blob:"]`)]
    return drawn + shown.filter((image) => image.checkVisibility()).length
}
"""

# A line of text as core gets it from the server; whether nodes show theirs.
TEXT = """
([nodeId, text]) => comfyAPI.api.api.dispatchCustomEvent("progress_text", { nodeId, text })
"""
TEXTS = """
(numbers) => numbers.map((number) => {
    const widgets = app.graph.getNodeById(number).widgets
    return widgets.some(({ name, hidden }) => name === "$$node-text-preview" && !hidden)
})
"""
ADVANCED = """
(id) => {
    const ofVue = [...document.querySelectorAll(`[data-node-id="${id}"] button`)]
    const button = ofVue.find(({ innerText }) => innerText.includes("advanced inputs"))
    if (button) button.click()
    else app.graph.getNodeById(id).widgets.find(({ type }) => type === "button").callback()
}
"""

PANELS = {
    "Likeness_Subject": ".lk-subject",
    "Likeness_TrainLoRA": ".lk-training",
    "Likeness_PoseSet": ".lk-picker",
    "Likeness_ContactSheet": ".lk-comparison",
    "Likeness_Score": ".lk-score-panel",
}


@pytest.fixture(
    scope="module", params=[(False, "dark"), (True, "light")], ids=["classic dark", "vue light"]
)
def rendered(request, tab, server):
    """The editor with the workflow, and a finished run on its train node."""
    vue, palette = request.param
    with tab(Comfy__VueNodes__Enabled=vue, Comfy__ColorPalette=palette) as editor:
        load_reduced(editor)
        show_run(editor, server, f"rendered-{palette}")
        yield editor


@pytest.fixture
def loaded(rendered, no_errors):
    with no_errors(rendered) as editor:
        yield editor


def show_run(editor, server, name):
    steps = [step(number, 40) for number in range(1, 41)]
    events = [event("stage", name="train", done=0, total=0), *steps, event("finished", seconds=9)]
    folder = write_run(server.home / "output", name, events)
    number = editor.find_node_id("Likeness_TrainLoRA")
    editor.pin(number, "run", folder.name)


NOTICES = [
    "Photographs: 12 used, 2 not used:\n- a.jpg: it is blurred\n- b.jpg: it is too small",
    "3 of 12 photographs are trained without the token 'sks' in their prompt or caption.",
    "optimizer.learning_rate is 0.0001: DreamBooth trains all weights, usually at 1e-6 to 5e-6.",
    "CUDA graphs are not used, so steps are slower: this GPU has none.",
]


def test_only_the_last_notice_of_a_run_could_be_read(loaded, server, show, expect, request):
    """All are there after the run has ended, and neither the panel nor the chart gives way."""
    number = loaded.find_node_id("Likeness_TrainLoRA")
    show(loaded, number)
    panel = loaded.page.locator(".lk-training:visible")
    before = at_rest(loaded.page, panel)
    said = [event("notice", text=text) for text in (*NOTICES, NOTICES[0])]
    start = [event("stage", name="train", done=0, total=0), *said]
    ends = [event("saved", path="/x/a.safetensors"), event("finished", seconds=9)]
    events = [*start, *(step(n, 40) for n in range(1, 41)), *ends]
    folder = write_run(server.home / "output", f"noticed-{request.node.callspec.id}", events)
    loaded.pin(number, "run", folder.name)
    items = panel.locator(".lk-notes li")
    expect(items).to_have_count(len(NOTICES))
    assert items.first.inner_text().strip() == NOTICES[0]
    items.last.scroll_into_view_if_needed()
    expect(items.last).to_contain_text("3 of 12 photographs")
    notes, after = panel.locator(".lk-notes").bounding_box(), panel.bounding_box()
    assert abs(after["height"] - before["height"]) <= 2
    assert notes["y"] + notes["height"] <= after["y"] + after["height"]
    assert panel.locator(".lk-chart").bounding_box()["height"] >= 0.2 * after["height"]


def at_rest(page, panel):
    """Where the panel is when the canvas has come to rest."""
    before, inner = None, panel.bounding_box()
    for _ in range(50):
        if inner == before:
            break
        page.wait_for_timeout(300)
        before, inner = inner, panel.bounding_box()
    return inner


@pytest.mark.parametrize("kind", PANELS)
def test_a_panel_is_inside_its_node(loaded, show, expect, kind):
    number = loaded.find_node_id(kind)
    show(loaded, number)
    panel = loaded.page.locator(f"{PANELS[kind]}:visible").first
    expect(panel).to_be_visible()
    inner = at_rest(loaded.page, panel)
    left, top, right, bottom = loaded.screen_box(number)
    assert inner["width"] > 0.6 * (right - left) and inner["height"] > 50
    assert left - 2 <= inner["x"] and inner["x"] + inner["width"] <= right + 2
    assert top <= inner["y"] and inner["y"] + inner["height"] <= bottom + 2


def test_a_click_on_a_pose_changes_the_value_that_is_saved(loaded, show):
    number = loaded.find_node_id("Likeness_PoseSet")
    show(loaded, number)
    loaded.page.locator(".lk-pose:visible").nth(1).click()
    node = next(n for n in loaded.saved()["nodes"] if n["type"] == "Likeness_PoseSet")
    assert node["widgets_values"][0] == "tree, goddess, lotus"


def test_the_photographs_are_shown_as_they_are_trained(loaded, show):
    number = loaded.find_node_id("Likeness_Subject")
    show(loaded, number)
    subject = loaded.page.locator(".lk-subject:visible").first
    subject.locator(".lk-photo").nth(14).wait_for(state="attached")
    sizes = subject.locator(".lk-photo img").evaluate_all(
        "all => all.map((one) => [one.getAttribute('width'), one.getAttribute('height')])"
    )
    assert sizes == [["64", "64"]] * 15


def test_a_panel_takes_the_place_of_cores_preview(loaded, show, wait_for):
    content = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(content, "PNG")
    preview = PREVIEW % base64.b64encode(content.getvalue()).decode()

    def previews(kind):
        return loaded.page.evaluate(PREVIEWS, str(loaded.find_node_id(kind)))

    for kind in ("Likeness_TrainLoRA", "Likeness_ContactSheet", "KSampler"):
        show(loaded, loaded.find_node_id(kind))
        loaded.page.evaluate(preview, str(loaded.find_node_id(kind)))
    wait_for(loaded, lambda: previews("KSampler") == 1)
    for kind in ("Likeness_TrainLoRA", "Likeness_ContactSheet"):
        show(loaded, loaded.find_node_id(kind))
        loaded.page.wait_for_timeout(500)
        assert previews(kind) == 0
        panel = loaded.page.locator(f"{PANELS[kind]}:visible").first
        assert panel.bounding_box()["height"] > 50


@pytest.mark.parametrize("kind", ["Likeness_TrainLoRA", "Likeness_ContactSheet", "Likeness_Score"])
def test_a_stale_line_of_text_took_half_of_the_panel(loaded, show, expect, kind):
    show(
        loaded, loaded.find_node_id("Likeness_PromptSet")
    )  # the line comes while others are in view
    for shown in (kind, "KSampler"):
        loaded.page.evaluate(TEXT, [str(loaded.find_node_id(shown)), f"{shown} goes on"])
    texts = loaded.page.evaluate(
        TEXTS, [loaded.find_node_id(kind), loaded.find_node_id("KSampler")]
    )
    assert texts == [False, True], "only core's own node has the line below its widgets"
    show(loaded, loaded.find_node_id(kind))
    expect(loaded.page.locator(f"{PANELS[kind]}:visible").first).to_be_visible()
    loaded.page.wait_for_timeout(500)
    expect(loaded.page.get_by_text(f"{kind} goes on").locator("visible=true")).to_have_count(0)


def test_the_poses_of_a_new_node_are_side_by_side(loaded, show, expect):
    """From here on the workflow is put away."""
    loaded.load(EMPTY)
    show(loaded, loaded.add("Likeness_PoseSet"))
    poses = loaded.page.locator(".lk-pose:visible")
    expect(poses).to_have_count(4)
    assert len({round(pose.bounding_box()["y"]) for pose in poses.all()}) == 1


def test_train_options_was_as_high_as_the_window(loaded, server, show, wait_for):
    loaded.load(EMPTY)
    number = loaded.add("Likeness_TrainOptions")
    show(loaded, number)
    of_vue = loaded.page.locator(f'[data-node-id="{number}"]').count()
    release = server.get("/system_stats")["system"]["comfyui_version"]
    if of_vue and release.startswith("0.8."):
        pytest.skip("the Vue nodes of this ComfyUI hide no advanced inputs")

    def height():
        _, top, _, bottom = loaded.box(number)
        return bottom - top

    def values():
        return loaded.saved()["nodes"][0]["widgets_values"]

    before = values()
    wait_for(loaded, lambda: height() < 600)
    loaded.page.evaluate(ADVANCED, number)
    wait_for(loaded, lambda: height() > 900)
    loaded.load(loaded.saved())
    assert height() > 900 and values() == before, "what is shown is saved with the node"
    loaded.page.evaluate(ADVANCED, number)
    assert values() == before
