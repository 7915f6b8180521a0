"""What is cancelled, interrupted or stopped: who may do it, and what is shown and asked then."""

from __future__ import annotations

import pytest
from filelock import FileLock
from likeness.tools.material import event, step, write_comparison, write_run
from likeness.trainers.runs import RunFolder
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

STEPS = [event("stage", name="train", done=0, total=0), *[step(n, 40) for n in range(1, 5)]]


def test_a_run_of_another_process_is_not_cancelled_from_here(editor, server, expect, show):
    folder = write_run(server.home / "output", "elsewhere", STEPS)
    number = editor.add("Likeness_TrainLoRA")
    show(editor, number)
    cancel = editor.page.get_by_role("button", name="Cancel", exact=True)
    with FileLock(RunFolder(folder).lock):
        board = {"workflow": "", "node": str(number), "kind": "run", "value": folder.name}
        editor.tell("likeness.board", board)
        expect(editor.page.get_by_role("button", name="Stop and save")).to_be_visible()
        expect(cancel).to_be_hidden()
        news = {"run": folder.name, "ended": False, "step": 5, "total": 40}
        editor.tell("likeness.step", news)
        expect(cancel).to_be_visible()
        editor.tell("likeness.step", {"run": folder.name, "ended": True})
        expect(cancel).to_be_hidden()


@pytest.fixture
def stopped(editor, server, show, request):
    """The panel of a run that was stopped and saved."""
    name = "stopped" + str(len(request.node.name))
    ends = [event("saved", path="/x/a.safetensors"), event("stopped", step=4)]
    events = [*STEPS, *ends, event("finished", seconds=9)]
    folder = write_run(server.home / "output", name, events)
    number = editor.add("Likeness_TrainLoRA")
    show(editor, number)
    board = {"workflow": "", "node": str(number), "kind": "run", "value": folder.name}
    editor.tell("likeness.board", board)
    return editor.page.locator(".lk-training:visible")


def test_a_refusal_to_train_on_has_its_reason(editor, stopped, expect):
    stopped.get_by_role("button", name="Train on").click()
    expect(stopped.locator(".lk-note")).to_contain_text("nothing is left of it to train")
    editor.errors = [line for line in editor.errors if "409" not in line]


def test_a_run_that_is_asked_to_go_on_is_not_asked_twice(editor, stopped, expect):
    page, button = editor.page, stopped.get_by_role("button", name="Train on")
    page.route("**/go-on", lambda route: route.fulfill(json={}))
    queue = page.evaluate_handle("() => app.queuePrompt")
    page.evaluate("() => { app.queuePrompt = async () => true }")
    button.click()
    expect(stopped.locator(".lk-state")).to_have_text("Starting …")
    expect(button).to_be_disabled()
    editor.tell("status", {"exec_info": {"queue_remaining": 0}})
    expect(stopped.locator(".lk-state")).to_have_text("Stopped and saved")
    expect(button).to_be_enabled()
    page.evaluate("(queue) => { app.queuePrompt = queue }", queue)
    page.unroute("**/go-on")


def test_no_time_is_left_when_a_comparison_was_interrupted(editor, server, expect, show):
    def draw(row, column):
        return Image.new("RGB", (64, 64), (100 * row, 100 * column, 0))

    write_comparison(server.home / "output", "interrupted", ["base", "one"], ["a", "b"], draw)
    number = editor.add("Likeness_ContactSheet", (420, 420))
    show(editor, number)
    board = {"workflow": "", "node": str(number), "kind": "comparison", "value": "interrupted"}
    editor.tell("likeness.board", board)
    count = editor.page.locator(".lk-comparison:visible .lk-count")
    expect(count).to_have_text("4 pictures")
    news = {"workflow": "", "node": str(number), "name": "interrupted", "finished": False}
    editor.tell("likeness.cells", {**news, "drawn": {}, "line": "4 drawn, 48 left, about 3 min"})
    expect(count).to_contain_text("48 left")
    editor.tell("execution_interrupted", {"node_id": str(number)})
    expect(count).to_have_text("4 pictures")
