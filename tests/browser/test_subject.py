"""Subject's panel: photographs that are dropped on it, R, and the words that nodes are found by."""

from __future__ import annotations

import base64
import io
import re
import shutil
import zlib

import pytest
from likeness.tools.editor import EMPTY
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

DROP = """
async ([id, data]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))
    const files = [new File([bytes], "dropped.png", { type: "image/png" })]
    const node = app.graph.getNodeById(id)
    if (!node.onDragOver({ dataTransfer: { items: [{ kind: "file" }] } })) return false
    return await node.onDragDrop({ dataTransfer: { files } })
}
"""
# Drops files on the panel; whether they may be dropped there.
DROP_ON_PANEL = """
async (panel, files) => {
    const dataTransfer = new DataTransfer()
    for (const [name, type, data] of files) {
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))
        dataTransfer.items.add(new File([bytes], name, { type }))
    }
    const event = (kind) =>
        new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer })
    if (panel.dispatchEvent(event("dragover"))) return false
    panel.dispatchEvent(event("drop"))
    return true
}
"""
BROKEN = "(all) => all.map((one) => one.complete && one.naturalWidth === 0)"
LOADED = "(all) => all.map((one) => one.complete && one.naturalWidth > 0)"
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


NEW_FOLDER = "Folder for the photographs"


def folder_widget(editor):
    (node,) = editor.saved()["nodes"]
    return node["widgets_values"][0]


@pytest.fixture
def new_folder(server, request):
    """A folder that is not there yet, and that no node of an earlier test lists."""
    place = server.home / "input" / f"new {zlib.crc32(request.node.name.encode())}"
    yield place
    shutil.rmtree(place, ignore_errors=True)


def test_photographs_dropped_on_a_node_without_a_folder_make_one(
    editor, subject, new_folder, expect
):
    editor.set_widgets("Likeness_Subject", folder="miniature (bundled)")
    panel = editor.page.locator(".lk-subject:visible")
    dropped = ["one.png", "image/png", encoded(photograph(1))]
    assert panel.evaluate(DROP_ON_PANEL, [dropped]) is True
    dialog = editor.page.get_by_role("dialog").filter(has_text=NEW_FOLDER)
    dialog.get_by_role("textbox").fill(new_folder.name.replace(" ", ": "))
    editor.page.keyboard.press("Enter")
    expect(panel.get_by_role("button", name="one.png")).to_be_visible()
    assert folder_widget(editor) == new_folder.name
    assert (new_folder / "one.png").is_file()


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "vue"])
def test_a_folder_that_is_dropped_becomes_the_subjects(
    tab, no_errors, new_folder, tmp_path, show, expect, vue
):
    source = tmp_path / new_folder.name
    (source / "sub-folder").mkdir(parents=True)
    for number, name in enumerate(("one.png", "two.png", "sub-folder/three.png")):
        (source / name).write_bytes(photograph(number))
    (source / "one.txt").write_text("sks at sea")
    with tab(Comfy__VueNodes__Enabled=vue) as opened, no_errors(opened) as editor:
        editor.load(EMPTY)
        show(editor, editor.add("Likeness_Subject", (380, 640)))
        panel = editor.page.locator(".lk-subject:visible")
        drop_files(editor.page, panel, source)
        expect(panel.locator(".lk-photo")).to_have_count(2)
        assert folder_widget(editor) == new_folder.name
        copied = sorted(path.name for path in new_folder.iterdir())
        assert copied == ["one.png", "one.txt", "two.png"]
        # Again: the user decides, and cancels.
        drop_files(editor.page, panel, source)
        dialog = editor.page.get_by_role("dialog").filter(has_text=NEW_FOLDER)
        expect(dialog).to_contain_text(f"There is a folder {new_folder.name}")
        editor.page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        expect(panel.locator(".lk-photo")).to_have_count(2)


def drop_files(page, target, *paths):
    """Drops files and folders of this machine, as only the browser itself can."""
    box = target.bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    devtools.detach()


@pytest.mark.parametrize("item", ["Photographs …", "A folder …"])
def test_photographs_are_added_with_the_button(
    editor, subject, folder, new_folder, tmp_path, expect, item
):
    source = tmp_path / new_folder.name
    source.mkdir()
    (source / "one.png").write_bytes(photograph(1))
    panel = editor.page.locator(".lk-subject:visible")
    panel.get_by_role("button", name="Add", exact=True).click()
    whole = item == "A folder …"
    with editor.page.expect_file_chooser() as chooser:
        editor.page.get_by_role("menuitem", name=item).click()
    chooser.value.set_files(source if whole else source / "one.png")
    expect(panel.get_by_role("button", name="one.png")).to_be_visible()
    assert folder_widget(editor) == (new_folder if whole else folder).name
    expect(panel.locator(".lk-photo")).to_have_count(1 if whole else 2)


def test_r_reads_the_folder_again_though_a_button_of_the_panel_was_clicked(
    editor, subject, folder, expect
):
    (folder / "second.png").write_bytes(photograph(2))
    editor.page.get_by_text("Uncropped").first.click()
    editor.page.keyboard.press("r")
    expect(editor.page.locator(".lk-photo:visible")).to_have_count(2)


def test_nodes_are_found_by_the_words_that_users_know(editor, server):
    if "search_aliases" not in server.get("/object_info/KSampler")["KSampler"]:
        pytest.skip("this ComfyUI knows no such words")
    assert "xy plot" in editor.page.evaluate(WORDS, "Likeness_Matrix")
    assert "dataset" in editor.page.evaluate(WORDS, "Likeness_Subject")


def test_a_photograph_that_cannot_be_copied_is_named(editor, subject, expect):
    editor.page.route("**/upload/image", lambda route: route.abort())
    data = base64.b64encode(photograph(1)).decode()
    assert editor.page.evaluate(DROP, [subject, data]) is True
    panel = editor.page.locator(".lk-subject:visible")
    expect(panel.locator(".lk-empty")).to_contain_text("dropped.png could not be copied")
    editor.page.unroute("**/upload/image")
    panel.get_by_label("Read the folder again").click()
    expect(panel.locator(".lk-photo")).to_have_count(1)


def test_words_that_are_typed_read_no_photographs(editor, subject, expect):
    asked = []
    editor.page.on("request", lambda request: asked.append(request.url))
    editor.set_widgets("Likeness_Subject", prompt="a photo of a man")
    notes = editor.page.locator(".lk-subject:visible .lk-notes")
    expect(notes).to_contain_text("The prompt lacks the token")
    editor.set_widgets("Likeness_Subject", prompt="a photo of {token}")
    expect(notes).not_to_contain_text("The prompt lacks the token")
    assert not [address for address in asked if "/likeness/photos" in address]


def test_a_photograph_keeps_the_focus_when_the_folder_is_read_again(
    editor, subject, folder, expect
):
    photos = editor.page.locator(".lk-photo:visible")
    photos.first.focus()
    (folder / "second.png").write_bytes(photograph(2))
    editor.page.keyboard.press("r")
    expect(photos).to_have_count(2)
    expect(editor.page.locator(".lk-photo:focus")).to_have_attribute(
        "aria-label", re.compile("first.png")
    )


def test_a_new_subject_begins_with_a_hint_and_not_with_fifteen_errors(editor, show, expect):
    show(editor, editor.add("Likeness_Subject", (380, 640)))
    editor.set_widgets("Likeness_Subject", folder="miniature (bundled)")
    panel = editor.page.locator(".lk-subject:visible")
    expect(panel.locator(".lk-empty")).to_contain_text("Drop your photographs here")
    expect(panel).not_to_contain_text("skipped")
    editor.set_widgets("Likeness_Subject", resolution=64)
    expect(panel.locator(".lk-photo")).to_have_count(15)


def test_refusals_are_one_line_each_reason_and_begin_below_the_bar(editor, subject, folder, expect):
    (folder / "first.png").unlink()
    for number in range(15):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"small{number}.png")
    for number in range(12):
        Image.new("RGB", (65 + number, 64)).save(folder / f"other{number}.png")
    panel = editor.page.locator(".lk-subject:visible")
    panel.get_by_label("Read the folder again").click()
    lines = panel.locator(".lk-empty li")
    expect(lines).to_have_count(13)
    folded = lines.filter(has_text="15 photographs")
    expect(folded).to_contain_text("skipped: it is too small: 64x64")
    assert folded.get_attribute("title").splitlines()[14] == "small9.png"
    empty, bar = panel.locator(".lk-empty"), panel.locator(".lk-panel-bar").bounding_box()
    expect(empty).to_contain_text("None of these photographs can be used.")
    assert empty.bounding_box()["y"] >= bar["y"] + bar["height"] - 1
    assert empty.evaluate("(one) => one.scrollTop === 0 && one.scrollHeight > one.clientHeight")
    for old in folder.iterdir():
        old.unlink()


def encoded(content):
    return base64.b64encode(content).decode()


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "vue"])
def test_photographs_can_be_dropped_on_the_panel(tab, no_errors, folder, show, expect, vue):
    with tab(Comfy__VueNodes__Enabled=vue) as opened, no_errors(opened) as editor:
        editor.load(EMPTY)
        number = editor.add("Likeness_Subject", (380, 640))
        editor.set_widgets("Likeness_Subject", folder=folder.name)
        show(editor, number)
        panel = editor.page.locator(".lk-subject:visible")
        expect(panel.locator(".lk-photo")).to_have_count(1)
        assert panel.evaluate(DROP_ON_PANEL, []) is vue  # no files: the Vue node takes all
        content = photograph(1)
        dropped = ["dropped.png", "image/png", encoded(content)]
        assert panel.evaluate(DROP_ON_PANEL, [dropped]) is True
        expect(panel.locator(".lk-photo")).to_have_count(2)
        assert (folder / "dropped.png").read_bytes() == content
        assert len(editor.saved()["nodes"]) == 1, "no Load Image node beside it"


def test_a_dropped_caption_does_not_replace_that_of_another_photograph(
    editor, subject, folder, expect
):
    (folder / "first.txt").write_text("sks at home")
    files = [
        ["first.txt", "text/plain", encoded(b"sks at sea")],
        ["first.png", "image/png", encoded(photograph(1))],
    ]
    panel = editor.page.locator(".lk-subject:visible")
    assert panel.evaluate(DROP_ON_PANEL, files) is True
    expect(panel.locator(".lk-photo")).to_have_count(2)
    assert (folder / "first.txt").read_text() == "sks at home"
    assert (folder / "first (1).txt").read_text() == "sks at sea"


@pytest.mark.parametrize("how", ["button", "reconnected"])
def test_images_that_were_lost_are_shown_when_they_are_there_again(
    editor, subject, folder, expect, wait_for, how
):
    page, panel = editor.page, editor.page.locator(".lk-subject:visible")
    images = panel.locator(".lk-photo img")
    wait_for(editor, lambda: images.evaluate_all(LOADED) == [True])
    page.route("**/view?*", lambda route: route.fulfill(status=404))
    (folder / "second.png").write_bytes(photograph(10 + len(how)))
    panel.get_by_label("Read the folder again").click()
    expect(panel.locator(".lk-photo")).to_have_count(2)
    wait_for(editor, lambda: any(images.evaluate_all(BROKEN)))
    page.wait_for_function("() => [...document.images].every((one) => one.complete)")
    page.unroute("**/view?*")
    if how == "button":
        panel.get_by_label("Read the folder again").click()
    else:
        editor.tell("reconnected", {})
    wait_for(editor, lambda: images.evaluate_all(LOADED) == [True, True])
    editor.errors = [line for line in editor.errors if "404" not in line]


def test_one_folders_photographs_are_not_shown_under_the_name_of_another(
    editor, subject, server, folder, expect
):
    other = server.home / "input" / "slowly read"
    other.mkdir(exist_ok=True)
    (other / "other.png").write_bytes(photograph(3))
    page, panel = editor.page, editor.page.locator(".lk-subject:visible")
    held = []
    page.route("**/likeness/photos?*", lambda route: held.append(route))
    panel.get_by_label("Read the folder again").click()
    expect(panel.locator(".lk-count")).to_have_text("Reading …")
    expect(panel.locator(".lk-photo")).to_be_visible()
    editor.set_widgets("Likeness_Subject", folder=other.name)
    expect(panel.locator(".lk-photo")).to_be_hidden()
    expect(panel.locator(".lk-empty")).to_contain_text("Reading")
    for route in held:
        route.continue_()
    page.unroute("**/likeness/photos?*")
    expect(page.get_by_role("button", name="other.png")).to_be_visible()
