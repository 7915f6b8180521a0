"""What a user with only a browser gets of a run: its files."""

from __future__ import annotations

import json
from itertools import count

import pytest
from filelock import FileLock
from likeness.tools.fixtures import event, step, write_run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

NAMES = (f"Änna 1-lora-r4-{number:08x}" for number in count())
STEPS = [event("stage", name="train", done=0, total=0), *[step(n, 40) for n in range(1, 41)]]
RESULT = {
    "version": 1,
    "steps": 40,
    "losses": [0.1],
    "seconds": {},
    "notes": [],
    "precision": "fp32",
    "peak_memory": 1,
    "stopped": False,
}


@pytest.fixture
def finished(editor, server, show):
    """The panel of a finished run, `finished(kind, steps)`, with adapters of these steps."""

    def write(kind, steps=()):
        output, name = server.home / "output", next(NAMES)
        folder = output / kind
        folder.mkdir(exist_ok=True)
        result = folder / f"{name}.safetensors"
        for file in (result, *(folder / f"{name}-step{n:06d}.safetensors" for n in steps)):
            file.write_bytes(file.name.encode())
        on_the_way = [event("adapter", step=n, path="x") for n in steps]
        ends = [event("saved", path=str(result)), event("finished", seconds=9)]
        run = write_run(output, name, [*STEPS, *on_the_way, *ends])
        (run / "result.json").write_text(json.dumps(RESULT | {"adapter": str(result)}))
        number = editor.add("Likeness_TrainLoRA")
        show(editor, number)
        editor.pin(number, "run", run.name)
        return editor.page.locator(".lk-training:visible"), result, run

    return write


def keep_state(run):
    """Gives a run a training state of 3 MB; returns a file of it."""
    state = run / "checkpoints" / "step-000040" / "weights"
    state.parent.mkdir(parents=True)
    state.write_bytes(bytes(3 * 2**20))
    return state


@pytest.mark.parametrize("kind", ["loras", "checkpoints"])
def test_the_result_could_not_be_got_with_a_browser(editor, finished, expect, kind):
    panel, result, _ = finished(kind)
    with editor.page.expect_download() as download:
        panel.get_by_role("link", name=result.name).click()
    assert download.value.suggested_filename == result.name
    assert download.value.path().read_bytes() == result.read_bytes()
    expect(panel.get_by_role("button", name="Steps")).to_be_hidden()


def test_adapters_saved_during_training_are_downloaded_one_by_one(editor, finished, expect):
    panel, result, _ = finished("loras", steps=(10, 20))
    panel.get_by_role("button", name="Steps").click()
    items = editor.page.get_by_role("menuitem")
    expect(items).to_have_count(2)
    with editor.page.expect_download() as download:
        items.filter(has_text="After step 20").click()
    file = result.with_name(f"{result.stem}-step000020.safetensors")
    assert download.value.suggested_filename == file.name
    assert download.value.path().read_bytes() == file.read_bytes()


def test_a_state_is_offered_for_deletion_once_the_runs_process_has_ended(editor, finished, expect):
    panel, _, run = finished("loras")
    keep_state(run)
    delete = panel.get_by_role("button", name="Delete training state")
    with FileLock(run / "lock"):
        editor.pin(editor.find_node_id("Likeness_TrainLoRA"), "run", run.name)
        expect(panel.get_by_role("link")).to_be_visible()
        expect(delete).to_be_hidden()
    expect(delete).to_be_visible()


def test_a_result_that_is_gone_has_its_name_and_no_link(editor, finished, expect):
    panel, result, run = finished("loras")
    link = panel.get_by_role("link", name=result.name)
    expect(link).to_be_visible()
    result.unlink()
    editor.pin(editor.find_node_id("Likeness_TrainLoRA"), "run", run.name)
    expect(link).to_have_count(0)
    expect(panel.locator(".lk-file")).to_have_text(result.name)


def test_the_training_state_is_deleted_after_a_question(editor, finished, expect):
    panel, result, run = finished("loras")
    state = keep_state(run)
    editor.pin(editor.find_node_id("Likeness_TrainLoRA"), "run", run.name)
    delete = panel.get_by_role("button", name="Delete training state (3.0 MB)")
    delete.click()
    box = editor.page.get_by_role("dialog", name="Delete training state")
    expect(box).to_contain_text("can then not be continued")
    box.get_by_role("button", name="Keep").click()
    assert state.is_file()
    delete.click()
    with FileLock(run / "lock"):  # another process trains it by now
        box.get_by_role("button", name="Delete").click()
        expect(box.get_by_role("status")).to_contain_text("being trained")
    editor.errors = [line for line in editor.errors if "409" not in line]
    box.get_by_role("button", name="Delete").click()
    expect(box).to_have_count(0)
    expect(delete).to_have_count(0)
    assert not state.exists() and result.is_file()
    expect(panel.get_by_role("link", name=result.name)).to_be_visible()
