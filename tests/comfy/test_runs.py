"""A training can be cancelled, and says what went wrong when its process dies."""

from __future__ import annotations

from contextlib import suppress

import psutil
import pytest

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(600)]

BASE = "sd15-random-fp16.safetensors"


@pytest.fixture
def long_training(comfy, workflow, graphs):
    """A training that would take hours; each test has its own."""

    def make(name):
        prompt = workflow(
            comfy,
            "train_lora",
            Likeness_TrainLoRA={
                "base_model": BASE,
                "steps": 10_000,
                "name": name,
                "attempt": graphs["attempt_of"](name),
            },
            Likeness_Subject={"resolution": 128},
        )
        kinds = ("Likeness_TrainLoRA", "Likeness_Subject")
        prompt = {key: node for key, node in prompt.items() if node["class_type"] in kinds}
        for node in prompt.values():
            node["inputs"].pop("class_images", None)
        return prompt

    return make


class When:
    """Calls `act(children)` once, as soon as the server has a training process that speaks."""

    def __init__(self, comfy, act):
        import psutil

        self.server, self.act, self.children = psutil.Process(comfy.process.pid), act, []

    def __call__(self, message):
        spoke = isinstance(message, bytes) and message[:4] == b"\x00\x00\x00\x03"
        if spoke and not self.children:
            self.children = self.server.children(recursive=True)
            if self.children:
                self.act(self.children)


def test_cancel_ends_the_training_at_once_and_comfyui_goes_on(comfy, long_training):
    when = When(comfy, lambda children: comfy.post("/interrupt", {}))
    outcome = comfy.run(long_training("cancelled"), when)
    assert outcome.status == "interrupted"
    assert when.children and not any(child.is_running() for child in when.children)
    assert not list((comfy.home / "output").glob("loras/cancelled-*"))
    prompt = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": BASE}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    assert comfy.run(prompt).status == "success"


def kill_all(children):
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def test_a_training_that_is_killed_names_the_cause_and_the_log(comfy, long_training):
    when = When(comfy, kill_all)
    outcome = comfy.run(long_training("killed"), when)
    assert outcome.status == "error"
    message = outcome.error["exception_message"]
    assert "SIGKILL" in message and "out of memory" in message
    log = next((comfy.home / "output" / "likeness" / "runs").glob("killed-*/log.txt"))
    assert str(log) in message
    assert not list((comfy.home / "output").glob("loras/killed-*"))
