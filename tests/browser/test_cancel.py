"""Cancel is for what this ComfyUI trains: another process may train the run that a panel shows."""

from __future__ import annotations

import pytest
from filelock import FileLock
from likeness.tools.material import event, step, write_run
from likeness.trainers.runs import RunFolder

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def test_a_run_of_another_process_is_not_cancelled_from_here(editor, server, expect, show):
    events = [event("stage", name="train", done=0, total=0), *[step(n, 40) for n in range(1, 5)]]
    folder = write_run(server.home / "output", "elsewhere", events)
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
