"""Panels in both of ComfyUI's node renderers and in both palettes."""

from __future__ import annotations

import pytest
from likeness.tools.editor import EMPTY
from likeness.tools.material import event, step, write_run
from likeness.tools.reduced import load_reduced

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PANELS = {
    "Likeness_Subject": ".lk-subject",
    "Likeness_TrainLoRA": ".lk-training",
    "Likeness_PoseSet": ".lk-picker",
    "Likeness_ContactSheet": ".lk-comparison",
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
def loaded(rendered, clean):
    with clean(rendered) as editor:
        yield editor


def show_run(editor, server, name):
    steps = [step(number, 40) for number in range(1, 41)]
    events = [event("stage", name="train", done=0, total=0), *steps, event("finished", seconds=9)]
    folder = write_run(server.home / "output", name, events)
    number = str(editor.number_of("Likeness_TrainLoRA"))
    board = {"workflow": "", "node": number, "kind": "run", "value": folder.name}
    editor.tell("likeness.board", board)


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
    number = loaded.number_of(kind)
    show(loaded, number)
    panel = loaded.page.locator(f"{PANELS[kind]}:visible").first
    expect(panel).to_be_visible()
    inner = at_rest(loaded.page, panel)
    left, top, right, bottom = loaded.on_screen(number)
    assert inner["width"] > 0.6 * (right - left) and inner["height"] > 50
    assert left - 2 <= inner["x"] and inner["x"] + inner["width"] <= right + 2
    assert top <= inner["y"] and inner["y"] + inner["height"] <= bottom + 2


def test_a_click_on_a_pose_changes_the_value_that_is_saved(loaded, show):
    number = loaded.number_of("Likeness_PoseSet")
    show(loaded, number)
    loaded.page.locator(".lk-pose:visible").nth(1).click()
    node = next(n for n in loaded.saved()["nodes"] if n["type"] == "Likeness_PoseSet")
    assert node["widgets_values"][0] == "tree, goddess, lotus"


def test_the_photographs_are_shown_as_they_are_trained(loaded, show):
    number = loaded.number_of("Likeness_Subject")
    show(loaded, number)
    subject = loaded.page.locator(".lk-subject:visible").first
    subject.locator(".lk-photo").nth(14).wait_for(state="attached")
    sizes = subject.locator(".lk-photo img").evaluate_all(
        "all => all.map((one) => [one.getAttribute('width'), one.getAttribute('height')])"
    )
    assert sizes == [["64", "64"]] * 15


def test_the_poses_of_a_new_node_are_side_by_side(loaded, show, expect):
    """The last test of this module: it puts the workflow away."""
    loaded.load(EMPTY)
    show(loaded, loaded.add("Likeness_PoseSet"))
    poses = loaded.page.locator(".lk-pose:visible")
    expect(poses).to_have_count(4)
    assert len({round(pose.bounding_box()["y"]) for pose in poses.all()}) == 1
