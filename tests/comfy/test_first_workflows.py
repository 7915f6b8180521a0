"""The bundled workflows run in a real ComfyUI, as they are saved, in one queue each."""

from __future__ import annotations

import pytest
from likeness.tools.comfyui import comfyui_has

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(900)]

BASE = "sd15-random-fp16.safetensors"

# What core logs for tensors that it could not place.
COMPLAINTS = ("not loaded", "unexpected", "missing", "shape mismatch", "left over")

SMALL = {
    "Likeness_Subject": {
        "resolution": 128,
        "class_word": "dog",
        "prompt": "a photo of {token} {class}",
    },
    "Likeness_ClassImages": {"count": 1, "steps": 1},
    "EmptyLatentImage": {"width": 128, "height": 128},
    "KSampler": {"steps": 1},
}
TRAIN = {"base_model": BASE, "steps": 2}


def node_of(prompt, kind):
    """Id of the only node of a kind."""
    return next(key for key, node in prompt.items() if node["class_type"] == kind)


def saved_image(comfy, prompt, outcome):
    """The file that SaveImage wrote."""
    image = outcome.outputs[node_of(prompt, "SaveImage")]["images"][0]
    return comfy.home / "output" / image["subfolder"] / image["filename"]


def find_differences(log):
    return [line for line in log.splitlines() if any(word in line.lower() for word in COMPLAINTS)]


@pytest.fixture(scope="module")
def lora(comfy, workflow):
    """train_lora.json, with small previews and core's own training nodes on its outputs."""
    prompt = workflow(
        comfy, "train_lora", **SMALL, Likeness_TrainLoRA={**TRAIN, "preview_every": 2}
    )
    train = node_of(prompt, "Likeness_TrainLoRA")
    info = comfy.get("/object_info/Likeness_TrainOptions")["Likeness_TrainOptions"]
    options = {name: spec[1]["default"] for name, spec in info["input"]["required"].items()}
    prompt["options"] = {
        "class_type": "Likeness_TrainOptions",
        "inputs": {**options, "preview_steps": 1, "preview_guidance": 1.0},
    }
    prompt[train]["inputs"]["options"] = ["options", 0]
    prompt["core"] = {
        "class_type": "LoraModelLoader",
        "inputs": {
            "model": [node_of(prompt, "CheckpointLoaderSimple"), 0],
            "lora": [train, 1],
            "strength_model": 1.0,
            "bypass": False,
        },
    }
    prompt["seen"] = {"class_type": "PreviewAny", "inputs": {"source": ["core", 0]}}
    return prompt, comfy.run(prompt)


def test_train_lora_trains_loads_and_draws_in_one_queue(comfy, lora):
    prompt, outcome = lora
    assert outcome.status == "success", outcome.error
    assert saved_image(comfy, prompt, outcome).is_file()
    files = list((comfy.home / "output" / "loras").glob("my_photos-lora-r4-*.safetensors"))
    assert len(files) == 1
    report = outcome.outputs[node_of(prompt, "PreviewAny")]["text"][0]
    assert files[0].name in report
    assert not find_differences(outcome.log)


def test_train_lora_shows_progress_and_a_preview(lora):
    prompt, outcome = lora
    train = node_of(prompt, "Likeness_TrainLoRA")
    states = [m["data"]["nodes"] for m in outcome.messages if m["type"] == "progress_state"]
    shown = [(nodes[train]["value"], nodes[train]["max"]) for nodes in states if train in nodes]
    assert (2, 2) in shown  # steps
    assert outcome.previews >= 1


def test_use_adapter_draws_with_the_trained_lora(comfy, workflow, lora):
    name = next((comfy.home / "output" / "loras").glob("my_photos-lora-*.safetensors")).name
    changes = {
        "CheckpointLoaderSimple": {"ckpt_name": BASE},
        "Likeness_LoadAdapter": {"adapter": name},
    }
    prompt = workflow(comfy, "use_adapter", **SMALL | changes)
    outcome = comfy.run(prompt)
    assert outcome.status == "success", outcome.error
    # The same model, adapter, prompt and seed as at the end of train_lora.json.
    trained, _ = lora
    assert pixels(saved_image(comfy, prompt, outcome)) == pixels(
        saved_image(comfy, trained, lora[1])
    )


def pixels(path):
    from PIL import Image

    with Image.open(path) as image:
        return image.tobytes()


@pytest.fixture(scope="module")
def dreambooth(comfy, workflow, lora):
    """train_dreambooth.json; with 8-bit Adam, because 32-bit states would take 6 GB more."""
    if not comfyui_has("bitsandbytes"):
        pytest.skip("ComfyUI's Python has no bitsandbytes, the extra cuda")
    comfy.free_memory()
    prompt = workflow(
        comfy,
        "train_dreambooth",
        **SMALL,
        Likeness_TrainDreamBooth={
            **TRAIN,
            "steps": 1,  # a minute on two cores
            "preview_every": 0,
            "optimizer": "adamw8bit",
            "learning_rate": 1e-4,
        },
    )
    return prompt, comfy.run(prompt)


def test_train_dreambooth_trains_loads_and_draws_in_one_queue(comfy, dreambooth):
    prompt, outcome = dreambooth
    assert outcome.status == "success", outcome.error
    assert saved_image(comfy, prompt, outcome).is_file()
    files = list((comfy.home / "output" / "checkpoints").glob("my_photos-dreambooth-128-*"))
    assert [file.suffix for file in files] == [".safetensors"]
    assert not find_differences(outcome.log)


def test_the_saved_checkpoint_is_what_load_adapter_puts_on_the_base(comfy, workflow, dreambooth):
    trained, first = dreambooth
    name = next((comfy.home / "output" / "checkpoints").glob("*.safetensors")).name
    changes = {
        "CheckpointLoaderSimple": {"ckpt_name": name},
        "StringReplace": {"replace": "sks dog"},  # what Load Adapter says of the trained one
    }
    prompt = workflow(comfy, "use_adapter", **SMALL | changes)
    outcome = comfy.run(prompt)
    assert outcome.status == "success", outcome.error
    assert not find_differences(outcome.log)
    assert pixels(saved_image(comfy, prompt, outcome)) == pixels(saved_image(comfy, trained, first))


def test_an_equal_training_is_reused_after_a_restart(comfy, lora):
    prompt, _ = lora
    comfy.free_memory()  # what ComfyUI itself remembers
    kinds = ("Train", "Subject", "ClassImages", "PreviewAny")
    prompt = {
        key: node
        for key, node in prompt.items()
        if any(kind in node["class_type"] for kind in kinds) and key != "seen"
    }
    outcome = comfy.run(prompt)
    assert outcome.status == "success", outcome.error
    assert node_of(prompt, "Likeness_TrainLoRA") not in outcome.cached
    report = outcome.outputs[node_of(prompt, "PreviewAny")]["text"][0]
    assert "is reused" in report
    assert len(list((comfy.home / "output" / "loras").glob("my_photos-lora-*"))) == 1
