"""The bundled workflows run in a real ComfyUI, as they are saved, in one queue each."""

from __future__ import annotations

import pytest

BASE = "sd15-random-fp16.safetensors"

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(900)]

# What core logs for tensors that it could not place.
COMPLAINTS = (
    "lora key not loaded",
    "NOT LOADED",
    "unexpected",
    "missing",
    "SHAPE MISMATCH",
    "left over",
)

SMALL = {
    "CheckpointLoaderSimple": {"ckpt_name": BASE},
    "Likeness_Subject": {
        "resolution": 128,
        "class_word": "dog",
        "prompt": "a photo of {token} {class}",
    },
    "Likeness_ClassImages": {"count": 2, "steps": 2},
    "EmptyLatentImage": {"width": 128, "height": 128},
    "KSampler": {"steps": 2},
}
TRAIN = {"base_model": BASE, "steps": 2, "preview_every": 2, "optimizer": "adamw"}


def only(prompt, kind):
    return next(key for key, node in prompt.items() if node["class_type"] == kind)


def complaints(log):
    return [line for line in log.splitlines() if any(word in line for word in COMPLAINTS)]


def test_train_lora_trains_loads_and_draws_in_one_queue(comfy, workflow):
    prompt = workflow(comfy, "train_lora", **SMALL, Likeness_TrainLoRA=TRAIN)
    outcome = comfy.run(prompt)
    assert outcome.status == "success", outcome.error
    assert list((comfy.home / "output" / "loras").glob("subject-lora-r4-*.safetensors"))
    picture = outcome.outputs[only(prompt, "SaveImage")]["images"][0]
    assert (comfy.home / "output" / picture["subfolder"] / picture["filename"]).is_file()
    assert not complaints(outcome.log)
