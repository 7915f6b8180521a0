"""Subject's panel: photographs that are dropped on it, R, and the words that nodes are found by."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

DROP = """
async ([id, data]) => {
    const blob = await (await fetch(`data:image/png;base64,${data}`)).blob()
    const files = [new File([blob], "dropped.png", { type: "image/png" })]
    const node = app.graph.getNodeById(id)
    if (!node.onDragOver({ dataTransfer: { items: [{ kind: "file" }] } })) return false
    return await node.onDragDrop({ dataTransfer: { files } })
}
"""
WORDS = "(type) => LiteGraph.registered_node_types[type].nodeData.search_aliases"


def photograph(seed):
    content = io.BytesIO()
    noise = Image.effect_noise((640, 800), 60 + seed).convert("RGB")
    noise.save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def folder(server):
    """A folder with one photograph."""
    place = server.home / "input" / "dropped on"
    place.mkdir(parents=True, exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    (place / "first.png").write_bytes(photograph(0))
    return place


@pytest.fixture
def subject(editor, folder, expect, show):
    number = editor.add("Likeness_Subject", (380, 640))
    editor.set_widgets("Likeness_Subject", folder=folder.name)
    show(editor, number)
    expect(editor.page.locator(".lk-photo:visible")).to_have_count(1)
    return number


def test_photographs_that_are_dropped_on_subject_go_into_its_folder(
    editor, subject, folder, expect
):
    data = base64.b64encode(photograph(1)).decode()
    assert editor.page.evaluate(DROP, [subject, data]) is True
    expect(editor.page.locator(".lk-photo:visible")).to_have_count(2)
    assert (folder / "dropped.png").read_bytes() == base64.b64decode(data)
    # Not where the pictures are the miniature's own.
    editor.set_widgets("Likeness_Subject", folder="miniature (bundled)")
    assert editor.page.evaluate(DROP, [subject, data]) is False


def test_r_reads_the_folder_again_though_a_button_of_the_panel_was_clicked(
    editor, subject, folder, expect
):
    (folder / "second.png").write_bytes(photograph(2))
    editor.page.get_by_text("Whole photographs").first.click()
    editor.page.keyboard.press("r")
    expect(editor.page.locator(".lk-photo:visible")).to_have_count(2)


def test_nodes_are_found_by_the_words_that_users_know(editor):
    assert "xy plot" in editor.page.evaluate(WORDS, "Likeness_Matrix")
    assert "dataset" in editor.page.evaluate(WORDS, "Likeness_Subject")
