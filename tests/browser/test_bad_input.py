"""What panels show of files that are gone, half written, newer, or named like markup."""

from __future__ import annotations

import os
import shutil

import pytest
from filelock import FileLock
from likeness.tools.fixtures import event, lines, step, write_comparison, write_run
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

MARK = "<img src=x onerror=window.hurt=1>"
START = [event("stage", name="train", done=0, total=0), *(step(n, 10) for n in (1, 2, 3))]


@pytest.fixture
def run(server, request):
    """Writes a run that another process seems to train: `run(events)`; returns its folder."""
    locks = []

    def write(events, busy=True):
        name = request.node.name.removeprefix("test_")[:60]
        folder = write_run(server.home / "output", name, events)
        if busy:
            locks.append(FileLock(folder / "lock"))
            locks[-1].acquire()
        return folder

    yield write
    for lock in locks:
        lock.release()


@pytest.fixture
def panel(editor, show):
    """Shows a run on a train node: `panel(folder)` returns the node's panel."""

    def follow(folder):
        number = editor.add("Likeness_TrainLoRA")
        show(editor, number)
        editor.pin(number, "run", folder.name)
        return editor.page.locator(".lk-fill:visible")

    return follow


def no_injection(editor):
    """Whether none of our texts became an element."""
    return editor.page.evaluate(
        "() => window.hurt === undefined && !document.querySelector('img[src=x]')"
    )


def test_a_run_folder_deleted_under_the_panel(editor, run, panel, expect):
    folder = run(START)
    shown = panel(folder)
    expect(shown.locator(".lk-count")).to_have_text("3 of 10")
    shutil.rmtree(folder)
    expect(shown.locator(".lk-state")).to_have_text("The run's folder is missing")
    expect(shown.locator(".lk-count")).to_have_text("3 of 10")
    editor.errors = [line for line in editor.errors if "404" not in line]


def test_a_run_that_was_never_there(editor, run, panel, expect):
    folder = run(START, busy=False)
    shutil.rmtree(folder)
    expect(panel(folder).locator(".lk-empty")).to_contain_text("folder is missing")
    editor.errors = [line for line in editor.errors if "404" not in line]


def test_a_half_written_last_line_is_read_when_it_is_whole(run, panel, expect):
    folder = run(START)
    rest = lines([step(4, 10)])
    with open(folder / "events.jsonl", "a", encoding="utf-8") as file:
        file.write(rest[:40])
        file.flush()
        shown = panel(folder)
        expect(shown.locator(".lk-count")).to_have_text("3 of 10")
        file.write(rest[40:])
    expect(shown.locator(".lk-count")).to_have_text("4 of 10")


def test_events_of_a_newer_version_among_ours_are_passed_over(run, panel, expect):
    folder = run([*START, step(9, 10, version=2), event("hologram", shown=True)])
    shown = panel(folder)
    expect(shown.locator(".lk-count")).to_have_text("3 of 10")
    expect(shown.locator(".lk-state")).to_have_text("Training")


def test_a_run_of_a_newer_version_says_so(run, panel, expect):
    folder = run([step(1, 10, version=2)], busy=False)
    expect(panel(folder).locator(".lk-empty")).to_contain_text("another version")


def test_texts_of_a_run_are_never_markup(editor, run, panel, expect):
    stage = event("stage", name=MARK, done=0, total=0)
    folder = run([stage, *START[1:], event("notice", text=MARK)])
    shown = panel(folder)
    expect(shown.locator(".lk-state")).to_have_text(MARK)
    expect(shown.locator(".lk-notes li")).to_have_text(MARK)
    with open(folder / "events.jsonl", "a", encoding="utf-8") as file:
        file.write(lines([event("failed", message=f"Lost: {MARK}", expected=True)]))
    expect(shown.locator(".lk-message")).to_have_text(f"Lost: {MARK}")
    assert no_injection(editor)


def test_names_of_a_comparison_are_never_markup(editor, server, show, expect):
    def draw(row, column):
        return Image.new("RGB", (64, 64), (100 * row, 100 * column, 0))

    write_comparison(server.home / "output", "marked", ["base", MARK], [MARK, "two"], draw)
    number = editor.add("Likeness_ContactSheet", (420, 420))
    show(editor, number)
    editor.pin(number, "comparison", "marked")
    editor.page.locator(".lk-comparison:visible").get_by_role("button", name="Open").click()
    viewer = editor.page.locator("dialog.lk-viewer")
    expect(viewer.locator(".lk-grid-label strong").nth(1)).to_have_text(MARK)
    viewer.locator("[data-index='2']").click()
    expect(viewer.locator("h2")).to_have_text(f"{MARK} · {MARK}")
    viewer.get_by_role("button", name="Compare two").click()
    expect(viewer.get_by_label("Model of A")).to_be_visible()
    assert no_injection(editor)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_of_photographs_are_never_markup(editor, server, show, expect):
    photos = server.home / "input" / "marked"
    photos.mkdir()
    Image.effect_noise((96, 96), 60).convert("RGB").save(photos / f"{MARK}.png")
    (photos / f"{MARK}.jpg").write_text("no image")
    number = editor.add("Likeness_Subject")
    show(editor, number)
    editor.set_widgets("Likeness_Subject", folder="marked", resolution=64)
    shown = editor.page.locator(".lk-subject:visible").first
    expect(shown.locator("li.bad strong")).to_have_text(f"{MARK}.jpg")
    shown.locator(".lk-photo").first.click()
    expect(editor.page.locator("dialog h2")).to_have_text(f"{MARK}.png")
    assert no_injection(editor)
