"""Photographs that are left out in Subject's panel, and put back."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from likeness.tools.editor import EMPTY
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

NAMES = ["a.png", "b.png", "c.png"]


@pytest.fixture
def folder(server):
    """A folder with three photographs, one of them with a caption."""
    place = server.home / "input" / "with some left out"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        Image.effect_noise((640, 800), 60 + seed).convert("RGB").save(place / name)
    (place / "b.txt").write_text("sks at sea")
    yield place
    shutil.rmtree(place)


@pytest.fixture
def add_subject(folder, show, expect):
    """Adds a Subject with the folder; returns its panel."""

    def add(editor):
        number = editor.add("Likeness_Subject", (380, 700))
        editor.set_widgets("Likeness_Subject", folder=folder.name)
        show(editor, number)
        panel = editor.page.locator(".lk-subject:visible")
        expect(panel.locator(".lk-photo")).to_have_count(3)
        return panel

    return add


@pytest.fixture
def panel(editor, add_subject):
    return add_subject(editor)


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def shown(panel):
    return [one.get_attribute("aria-label") for one in panel.locator(".lk-photo").all()]


def photo(panel, name):
    return panel.get_by_role("button", name=re.compile(rf"^{re.escape(name)}"))


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "vue"])
def test_a_photograph_is_left_out_where_it_is_enlarged_and_put_back_in_the_panel(
    tab, no_errors, add_subject, folder, expect, vue
):
    with tab(Comfy__VueNodes__Enabled=vue) as opened, no_errors(opened) as editor:
        editor.load(EMPTY)
        panel, page = add_subject(editor), editor.page
        before = listing(folder)
        photo(panel, "b.png").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Leave out").click()
        expect(dialog.locator("h2")).to_have_text("b.png, left out")
        assert listing(folder) == [
            "a.png", "c.png", "left out", "left out/b.png", "left out/b.txt",
        ]  # fmt: skip
        dialog.get_by_label("Close").click()
        expect(panel.locator(".lk-photo")).to_have_count(2)
        expect(panel).not_to_contain_text("Sub-folders")
        panel.get_by_text("Left out: 1").click()
        panel.get_by_role("button", name="Put back b.png").click()
        expect(panel.locator(".lk-photo")).to_have_count(3)
        expect(panel.get_by_text("Left out")).to_be_hidden()
        assert listing(folder) == before
        assert len(editor.saved()["nodes"]) == 1


def test_photographs_are_left_out_and_put_back_by_the_keyboard_alone(editor, panel, folder, expect):
    page, before = editor.page, listing(folder)
    first, second, third = shown(panel)
    photo(panel, second).focus()
    page.keyboard.press("Delete")
    expect(photo(panel, second)).to_have_count(0)
    expect(photo(panel, third)).to_be_focused()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("h2")).to_have_text(third)
    page.keyboard.press("Delete")
    expect(dialog.locator("h2")).to_have_text(f"{third}, left out")
    page.keyboard.press("ArrowLeft")
    expect(dialog.locator("h2")).to_have_text(first)
    page.keyboard.press("Backspace")
    expect(dialog.locator("h2")).to_have_text(f"{first}, left out")
    page.keyboard.press("Delete")
    expect(dialog.locator("h2")).to_have_text(first)
    expect(photo(panel, first)).to_have_count(1)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(photo(panel, first)).to_be_focused()
    page.keyboard.press("Delete")
    expect(panel.locator(".lk-empty")).to_contain_text("has no photographs")
    count = panel.get_by_text("Left out: 3")
    count.focus()
    page.keyboard.press("Enter")
    for _ in NAMES:
        page.keyboard.press("Tab")
    expect(panel.get_by_role("button", name="Put back c.png")).to_be_focused()
    page.keyboard.press("Enter")
    expect(panel.get_by_role("button", name="Put back b.png")).to_be_focused()
    page.keyboard.press("Enter")
    expect(panel.get_by_role("button", name="Put back a.png")).to_be_focused()
    page.keyboard.press("Enter")
    expect(panel.locator(".lk-photo")).to_have_count(3)
    assert listing(folder) == before
    assert len(editor.saved()["nodes"]) == 1, "Delete did not delete the node"


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "vue"])
def test_delete_deletes_a_selected_node_though_a_photograph_was_enlarged(
    tab, no_errors, add_subject, folder, expect, vue
):
    with tab(Comfy__VueNodes__Enabled=vue) as opened, no_errors(opened) as editor:
        editor.load(EMPTY)
        panel, page = add_subject(editor), editor.page
        photo(panel, "a.png").press("Enter")
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        expect(photo(panel, "a.png")).to_be_focused()
        left, top, right, _ = editor.screen_box(editor.find_node_id("Likeness_Subject"))
        page.mouse.click((left + right) / 2, top + 10)
        page.keyboard.press("Delete")
        expect(panel).to_have_count(0)
        assert editor.saved()["nodes"] == []
        assert "left out" not in listing(folder)


def test_a_photograph_that_cannot_be_moved_is_named(editor, panel, folder, expect):
    page, reason = editor.page, "b.txt is open in another program: close it and try again."
    answer = {"status": 409, "body": json.dumps({"error": reason})}
    page.route("**/likeness/photos/leave-out?*", lambda route: route.fulfill(**answer))
    problem = f"b.png could not be left out. {reason}"
    photo(panel, "b.png").focus()
    page.keyboard.press("Delete")
    expect(panel.get_by_role("alert")).to_have_text(problem)
    expect(panel.locator(".lk-photo")).to_have_count(3)
    photo(panel, "b.png").click()
    dialog = page.get_by_role("dialog")
    page.keyboard.press("Delete")
    expect(dialog.get_by_role("alert")).to_have_text(problem)
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("alert")).to_be_hidden()
    page.unroute("**/likeness/photos/leave-out?*")
    editor.errors = [line for line in editor.errors if "409" not in line]


def test_a_folder_that_may_not_be_written_is_said_in_the_panel(editor, panel, folder, expect):
    (folder / "left out").write_text("a file in the place of the folder")
    photo(panel, "a.png").focus()
    editor.page.keyboard.press("Delete")
    expect(panel.get_by_role("alert")).to_contain_text("a.png cannot be moved: File exists")
    (folder / "left out").unlink()
    editor.page.keyboard.press("Delete")
    expect(panel.get_by_text("Left out: 1")).to_be_visible()
    expect(panel.get_by_role("alert")).to_be_hidden()
    editor.errors = [line for line in editor.errors if "409" not in line]


def test_a_photograph_that_another_tab_left_out_is_gone_after_the_next_read(
    editor, panel, folder, expect
):
    (folder / "left out").mkdir()
    (folder / "a.png").rename(folder / "left out" / "a.png")
    photo(panel, "a.png").focus()
    editor.page.keyboard.press("Delete")
    expect(panel.get_by_role("alert")).to_contain_text("There is no photograph 'a.png'")
    expect(panel.locator(".lk-photo")).to_have_count(2)
    expect(panel.get_by_text("Left out: 1")).to_be_visible()
    editor.errors = [line for line in editor.errors if "404" not in line]


def test_the_other_nodes_of_the_folder_show_it_too(editor, panel, folder, expect):
    editor.add("Likeness_Subject", (380, 700))
    editor.set_widgets("Likeness_Subject", folder=folder.name)
    page = editor.page
    panels = page.locator(".lk-subject")
    expect(panels).to_have_count(2)
    expect(page.locator(".lk-photo")).to_have_count(6)
    photo(panel.first, "a.png").focus()
    page.keyboard.press("Delete")
    expect(page.locator(".lk-photo")).to_have_count(4)
    expect(page.locator(".lk-left-out details:not([hidden])")).to_have_count(2)


def test_the_miniatures_drawings_cannot_be_left_out(editor, panel, folder, expect):
    editor.set_widgets("Likeness_Subject", folder="miniature (bundled)", resolution=64)
    photos = panel.locator(".lk-photo")
    expect(photos).to_have_count(15)
    photos.first.focus()
    editor.page.keyboard.press("Delete")
    editor.page.keyboard.press("Enter")
    dialog = editor.page.get_by_role("dialog")
    expect(dialog.get_by_label("Close")).to_be_visible()
    expect(dialog.get_by_role("button", name="Leave out")).to_have_count(0)
    editor.page.keyboard.press("Delete")
    editor.page.keyboard.press("Escape")
    expect(photos).to_have_count(15)


def test_photographs_that_could_not_be_asked_for_were_an_error_of_the_page(editor, panel, expect):
    editor.page.route("**/likeness/photos?*", lambda route: route.abort())
    panel.get_by_label("Read the folder again").click()
    expect(panel.locator(".lk-empty")).to_contain_text("The photographs cannot be read.")
    editor.page.unroute("**/likeness/photos?*")
    panel.get_by_label("Read the folder again").click()
    expect(panel.locator(".lk-photo")).to_have_count(3)
    editor.errors = [line for line in editor.errors if "ERR_FAILED" not in line]
