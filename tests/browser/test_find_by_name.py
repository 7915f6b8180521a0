"""What panels find on the disk by themselves, and names that two nodes must not share."""

from __future__ import annotations

import pytest
from likeness.tools.editor import EMPTY
from likeness.tools.fixtures import write_comparison, write_scores
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PASTE = """
(id) => {
    app.canvas.selectItems([app.graph.getNodeById(id)])
    app.canvas.copyToClipboard()
    app.canvas.pasteFromClipboard()
    return app.graph.nodes.map((node) => node.widgets[0].value)
}
"""
CONNECT = "([from, to]) => app.graph.getNodeById(from).connect(1, app.graph.getNodeById(to), 0)"
COUNT = ".lk-comparison:visible .lk-count"


@pytest.fixture(scope="module", autouse=True)
def comparisons(server):
    """Two comparisons, the second with scores and a report."""

    def draw(row, column):
        return Image.new("RGB", (64, 64), (100 * row, 100 * column, 0))

    output, rows, columns = server.home / "output", ["base", "one"], ["a", "b"]
    write_comparison(output, "found", ["base"], columns, draw)
    folder = write_comparison(output, "measured", rows, columns, draw)
    write_scores(folder, rows, columns)


def test_panels_are_not_empty_after_comfyui_was_restarted(editor, show, expect):
    sheet = editor.add("Likeness_ContactSheet", (420, 420))
    score = editor.add("Likeness_Score", (420, 480))
    editor.set_widgets("Likeness_ContactSheet", name="measured")
    editor.page.evaluate(CONNECT, [sheet, score])
    editor.load(editor.saved())  # by an editor to which nothing was told
    show(editor, sheet)
    expect(editor.page.locator(COUNT)).to_have_text("4 images")
    show(editor, score)
    panel = editor.page.locator(".lk-score-panel:visible")
    expect(panel.locator(".lk-count")).to_have_text("measured: 1 score")
    assert panel.locator("tbody th").all_inner_texts() == ["base", "one", "photographs"]
    expect(panel.locator("td.best")).to_contain_text("0.500")
    expect(panel.locator(".lk-score-notes")).to_have_text("DINOv2 is left out.")
    report = panel.get_by_role("link", name="Report")
    assert report.get_attribute("href").endswith("/likeness/report?name=measured")


def test_a_contact_sheet_shows_what_has_its_name(editor, show, expect):
    number = editor.add("Likeness_ContactSheet", (420, 420))
    show(editor, number)
    panel = editor.page.locator(".lk-comparison:visible")
    for name, text in (("found", "2 images"), ("measured", "4 images")):
        editor.set_widgets("Likeness_ContactSheet", name=name)
        expect(panel.locator(".lk-count")).to_have_text(text)
    for name in ("nothing of this name", "../wrong"):
        editor.set_widgets("Likeness_ContactSheet", name=name)
        expect(panel.locator(".lk-empty")).to_contain_text("appear here as they are generated.")
        editor.set_widgets("Likeness_ContactSheet", name="found")
        expect(panel.locator(".lk-count")).to_have_text("2 images")


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "vue"])
def test_a_copied_contact_sheet_has_a_name_of_its_own(tab, no_errors, vue):
    with tab(Comfy__VueNodes__Enabled=vue) as opened, no_errors(opened) as editor:
        editor.load(EMPTY)
        number = editor.add("Likeness_ContactSheet")
        editor.set_widgets("Likeness_ContactSheet", name="found")
        assert editor.page.evaluate(PASTE, number) == ["found", "found 2"]
        assert editor.page.evaluate(PASTE, number) == ["found", "found 2", "found 3"]
        assert [node["widgets_values"][0] for node in editor.saved()["nodes"]][1:] == [
            "found 2",
            "found 3",
        ]
        # A workflow is loaded as it was saved.
        editor.set_widgets("Likeness_ContactSheet", name="found")
        loaded = editor.load(editor.saved())
        assert [node["widgets_values"][0] for node in loaded["nodes"]] == ["found"] * 3
