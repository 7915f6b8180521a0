"""What is cancelled, interrupted or stopped: who may do it, and what is shown and asked then."""

from __future__ import annotations

import json

import pytest
from filelock import FileLock
from likeness.tools.fixtures import event, lines, step, write_comparison, write_run
from likeness.trainers.run_folder import RunFolder
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

STEPS = [event("stage", name="train", done=0, total=0), *[step(n, 40) for n in range(1, 5)]]


def test_a_run_of_another_process_is_not_cancelled_from_here(editor, server, expect, show):
    folder = write_run(server.home / "output", "elsewhere", STEPS)
    number = editor.add("Likeness_TrainLoRA")
    show(editor, number)
    cancel = editor.page.get_by_role("button", name="Cancel", exact=True)
    with FileLock(RunFolder(folder).lock):
        editor.pin(number, "run", folder.name)
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
    editor.pin(number, "run", folder.name)
    return editor.page.locator(".lk-training:visible")


def test_a_refusal_to_train_on_has_its_reason(editor, stopped, expect):
    stopped.get_by_role("button", name="Resume").click()
    expect(stopped.locator(".lk-note")).to_contain_text("has no steps left to train")
    editor.errors = [line for line in editor.errors if "409" not in line]


def test_a_run_that_is_asked_to_go_on_is_not_asked_twice(editor, stopped, expect):
    page, button = editor.page, stopped.get_by_role("button", name="Resume")
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


def test_a_stopped_run_that_was_saved_can_be_shared_without_its_prompts(
    editor, server, stopped, expect
):
    page, asked = editor.page, []
    made = server.home / "temp" / "likeness" / "a.zip"
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_bytes(b"PK")

    def answer(route):
        asked.append(route.request.url)
        route.fulfill(json={"file": "a.zip", "contents": []})

    page.route("**/export*", lambda route: route.fulfill(status=409, json={"error": "No room."}))
    stopped.get_by_role("button", name="Share").click()
    box = page.get_by_role("dialog", name="Share")
    box.get_by_role("button", name="Create zip").click()
    expect(box.get_by_role("status")).to_have_text("No room.")
    page.unroute("**/export*")
    page.route("**/export*", answer)
    box.get_by_label("Leave out all prompts").check()
    with page.expect_download() as download:
        box.get_by_role("button", name="Create zip").click()
    assert download.value.suggested_filename == "a.zip"
    assert asked[0].endswith("/export?prompts=0")
    expect(box).to_have_count(0)
    page.unroute("**/export*")
    editor.errors = [line for line in editor.errors if "409" not in line]


def test_no_time_is_left_when_a_comparison_was_interrupted(editor, server, expect, show):
    def draw(row, column):
        return Image.new("RGB", (64, 64), (100 * row, 100 * column, 0))

    write_comparison(server.home / "output", "interrupted", ["base", "one"], ["a", "b"], draw)
    number = editor.add("Likeness_ContactSheet", (420, 420))
    show(editor, number)
    editor.pin(number, "comparison", "interrupted")
    count = editor.page.locator(".lk-comparison:visible .lk-count")
    expect(count).to_have_text("4 images")
    news = {"workflow": "", "node": str(number), "name": "interrupted", "finished": False}
    editor.tell("likeness.cells", {**news, "drawn": {}, "line": "4 drawn, 48 left, about 3 min"})
    expect(count).to_contain_text("48 left")
    editor.tell("execution_interrupted", {"node_id": str(number)})
    expect(count).to_have_text("4 images")
    # In another tab, and after a crash, only the queue tells.
    editor.tell("likeness.cells", {**news, "drawn": {}, "line": "5 drawn, 47 left, about 3 min"})
    expect(count).to_contain_text("47 left")
    editor.tell("status", {"exec_info": {"queue_remaining": 1}})
    expect(count).to_contain_text("47 left")
    editor.tell("status", {"exec_info": {"queue_remaining": 0}})
    expect(count).to_have_text("4 images")


@pytest.fixture
def training(editor, server, show, request):
    """The panel of a run that another process trains, its folder, and the node's number."""
    name = "trained" + str(len(request.node.name))
    folder = write_run(server.home / "output", name, STEPS)
    number = editor.add("Likeness_TrainLoRA")
    show(editor, number)
    with FileLock(RunFolder(folder).lock):
        editor.pin(number, "run", folder.name)
        panel = editor.page.locator(".lk-training:visible")
        expect_step(panel, 4)
        yield panel, folder, number


def expect_step(panel, number):
    panel.locator(".lk-count").get_by_text(f"{number} of 40").wait_for()


def append(folder, *events):
    with open(folder / "events.jsonl", "a", encoding="utf-8") as file:
        file.write(lines(events))


def test_that_a_run_is_being_saved_is_said_until_it_is(editor, training, expect):
    panel, folder, _ = training
    note = panel.locator(".lk-note")
    editor.page.route("**/stop", lambda route: route.fulfill(json={}))
    panel.get_by_role("button", name="Stop and save").click()
    expect(note).to_have_text("Saving after this step …")
    append(folder, event("notice", text="Memory is short."), step(5, 40))
    expect_step(panel, 5)
    expect(note).to_have_text("Saving after this step …")
    append(folder, event("saved", path="/x/a.safetensors"), event("stopped", step=5))
    expect(panel.locator(".lk-file")).to_have_text("a.safetensors")
    expect(note).to_be_hidden()
    editor.page.unroute("**/stop")


def test_a_refusal_to_stop_stays_to_be_read(editor, training, expect):
    panel, folder, _ = training
    refusal = {"error": "Nobody trains this run any more, " + "and so it cannot be stopped. " * 4}
    editor.page.route("**/stop", lambda route: route.fulfill(status=409, json=refusal))
    panel.get_by_role("button", name="Stop and save").click()
    note = panel.locator(".lk-note")
    expect(note).to_contain_text("could not be stopped: Nobody trains")
    append(folder, step(5, 40))
    expect_step(panel, 5)
    expect(note).to_contain_text("could not be stopped: Nobody trains")
    assert refusal["error"] in note.get_attribute("title")
    editor.page.unroute("**/stop")
    editor.errors = [line for line in editor.errors if "409" not in line]


def test_previews_and_a_failure_leave_the_size_of_the_node(editor, training, expect):
    panel, folder, number = training
    size = "(id) => [...app.graph.getNodeById(id).size]"
    before = editor.page.evaluate(size, number)
    (folder / "samples").mkdir()
    Image.new("RGB", (64, 64), "red").save(folder / "samples" / "4-0.png")
    previews = [event("preview", step=4, index=n, path="samples/4-0.png") for n in range(3)]
    append(folder, event("notice", text="Memory is short."), *previews)
    append(folder, event("failed", message="Out of memory.\n" * 9, expected=True))
    expect(panel.locator("[aria-label=Previews] img")).to_have_count(3)
    message = panel.locator(".lk-message")
    expect(message).to_be_visible()
    panel.locator("[aria-label=Previews] button").last.focus()
    assert editor.page.evaluate(size, number) == before
    body, box = panel.locator(".lk-training-body").bounding_box(), panel.bounding_box()
    assert body["y"] + body["height"] <= box["y"] + box["height"]


def test_a_run_that_never_began_is_not_waited_for_when_nothing_is_queued(
    editor, server, show, expect
):
    folder = write_run(server.home / "output", "never began", [])
    number = editor.add("Likeness_TrainLoRA")
    show(editor, number)
    editor.pin(number, "run", folder.name)
    empty = editor.page.locator(".lk-fill:visible .lk-empty")
    expect(empty).to_have_text("Starting training …")
    editor.tell("status", {"exec_info": {"queue_remaining": 0}})
    expect(empty).to_contain_text("Interrupted before training started")
    asked = []
    editor.page.on("request", lambda request: asked.append(request.url))
    editor.page.wait_for_timeout(2500)
    assert not [address for address in asked if "/likeness/runs/" in address]


def test_a_file_of_another_name_was_given_without_a_word_on_the_node(editor, server, expect, show):
    ends = [event("saved", path="/x/bob.safetensors"), event("finished", seconds=9)]
    folder = write_run(server.home / "output", "bob", [*STEPS, *ends])
    number = editor.add("Likeness_TrainLoRA")
    show(editor, number)
    panel = editor.page.locator(".lk-training:visible")

    editor.pin(number, "run", folder.name)
    expect(panel.locator(".lk-file")).to_have_text("bob.safetensors")
    editor.pin(number, "remark", {"run": folder.name, "text": "Already trained as 'bob'"})
    expect(panel.locator(".lk-notes li")).to_have_text("Already trained as 'bob'")
    editor.pin(number, "remark", {"run": folder.name, "text": ""})
    expect(panel.locator(".lk-notes")).to_be_hidden()
    expect(panel.locator(".lk-file")).to_have_text("bob.safetensors")


def test_cancel_interrupted_whatever_ran_by_then(editor, training, expect):
    panel, folder, _ = training
    asked = []

    def answer(route):
        asked.append(route.request.post_data_json)
        route.fulfill(status=200)

    editor.page.route("**/interrupt", answer)
    news = {"run": folder.name, "prompt": "p1", "ended": False, "step": 4, "total": 40, "line": ""}
    editor.tell("likeness.step", news)
    cancel = panel.get_by_role("button", name="Cancel")
    cancel.click()
    expect(cancel).to_have_text("Click again to cancel")
    cancel.click()
    expect(cancel).to_have_text("Cancel")
    assert asked == [{"prompt_id": "p1"}]
    editor.page.unroute("**/interrupt")


def test_rows_of_another_base_are_told_on_the_contact_sheet(editor, server, expect, show):
    def draw(row, column):
        return Image.new("RGB", (64, 64), (100 * row, 100 * column, 0))

    write_comparison(server.home / "output", "foreign", ["base", "one"], ["a"], draw)
    file = server.home / "output" / "likeness" / "comparisons" / "foreign" / "viewer.json"
    told = "Trained on another base model than the one loaded: one."
    file.write_text(json.dumps(json.loads(file.read_text()) | {"remark": told}))
    number = editor.add("Likeness_ContactSheet", (420, 420))
    show(editor, number)
    editor.pin(number, "comparison", "foreign")
    remark = editor.page.locator(".lk-comparison:visible .lk-remark")
    expect(remark).to_have_text(told)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"remark": ""}))
    editor.tell(
        "likeness.cells",
        {
            "workflow": "",
            "node": str(number),
            "name": "foreign",
            "drawn": {},
            "finished": True,
            "line": "",
        },
    )
    expect(remark).to_be_hidden()
