"""Bad input is a clear message: before the queue starts where that is possible."""

from __future__ import annotations

import json
import struct
import subprocess

import pytest

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(600)]

BASE = "sd15-random-fp16.safetensors"


def write_safetensors(path, shapes, cut=0):
    """A file of zeros with these tensors; `cut` bytes are missing at its end."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end - cut))


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


@pytest.fixture
def training(comfy, workflow):
    """The training of train_lora.json without the drawing; `changes` are by node type."""

    def make(**changes):
        good = {"Likeness_TrainLoRA": {"base_model": BASE}, "Likeness_Subject": {"resolution": 128}}
        both = {kind: good.get(kind, {}) | changes.get(kind, {}) for kind in {**good, **changes}}
        prompt = workflow(comfy, "train_lora", **both)
        kept = ("Likeness_Subject", "Likeness_ClassImages", "Likeness_TrainLoRA")
        return {key: node for key, node in prompt.items() if node["class_type"] in kept}

    return make


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("../output", "not a valid folder name"),
        ("my_photos/../..", "not a valid folder name"),
        ("/etc", "not a valid folder name"),
        ("C:\\photos", "not a valid folder name"),
        ("my_photos:stream", "not a valid folder name"),
        ("nobody", "There is no folder 'nobody'"),
        ("leads_out", "leads out of"),
        ("empty", "has no photographs"),
    ],
)
def test_a_folder_that_cannot_be_the_photographs(comfy, training, name, part):
    (comfy.home / "input" / "empty").mkdir(exist_ok=True)
    link = comfy.home / "input" / "leads_out"
    if not link.is_symlink():
        link.symlink_to(comfy.home / "output", target_is_directory=True)
    assert part in comfy.refused(training(Likeness_Subject={"folder": name}))


@pytest.mark.parametrize(
    ("kind", "values", "part"),
    [
        ("Likeness_TrainLoRA", {"rank": 0}, "smaller than min"),
        ("Likeness_TrainLoRA", {"name": "../x"}, "contains no path"),
        ("Likeness_TrainLoRA", {"base_model": "../x.safetensors"}, "not among ComfyUI's checkp"),
        ("Likeness_ClassImages", {"prompt": " "}, "must not be blank"),
        (
            "Likeness_ClassImages",
            {"source": "../input", "prompt": "a photo of a man"},
            "not a valid folder name",
        ),
        ("Likeness_Subject", {"token": "{x}"}, "subject has 1 problem"),
    ],
)
def test_values_that_cannot_be_trained(comfy, training, kind, values, part):
    assert part in comfy.refused(training(**{kind: values}))


SDXL = {
    "model.diffusion_model.input_blocks.0.0.weight": [320, 4, 3, 3],
    "model.diffusion_model.label_emb.0.0.weight": [4, 4],
    "conditioner.embedders.1.model.ln_final.weight": [4],
}


def test_an_sdxl_checkpoint_as_base(comfy, training):
    write_safetensors(comfy.home / "models" / "checkpoints" / "xl.safetensors", SDXL)
    said = comfy.refused(training(Likeness_TrainLoRA={"base_model": "xl.safetensors"}))
    assert "SDXL" in said


def test_a_truncated_checkpoint_as_base(comfy, training):
    path = comfy.home / "models" / "checkpoints" / "cut.safetensors"
    write_safetensors(path, SDXL, cut=100)
    said = comfy.refused(training(Likeness_TrainLoRA={"base_model": path.name}))
    assert "cut.safetensors is truncated" in said


def test_an_optimizer_that_is_not_installed(comfy, training):
    find = "import importlib.util, sys; sys.exit(importlib.util.find_spec('prodigyopt') is None)"
    if subprocess.run([comfy.python, "-c", find]).returncode == 0:
        pytest.skip("ComfyUI's Python has prodigyopt")
    said = comfy.refused(training(Likeness_TrainLoRA={"optimizer": "prodigy"}))
    assert "pip install --upgrade prodigyopt" in said


def test_nothing_usable_among_the_photographs(comfy, training):
    from PIL import Image

    folder = comfy.home / "input" / "bad"
    folder.mkdir(exist_ok=True)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff not an image")
    (folder / "notes.doc").write_text("not an image either")
    Image.new("RGB", (64, 64)).save(folder / "small.png")
    runs = comfy.home / "output" / "likeness" / "runs"
    before = set(runs.glob("*"))
    outcome = comfy.run(training(Likeness_Subject={"folder": "bad"}))
    assert outcome.status == "error"
    message = outcome.error["exception_message"]
    for name in ("broken.jpg", "other file is not used: .doc", "small.png: it is too small: 64x64"):
        assert name in message
    assert set(runs.glob("*")) == before


@pytest.fixture
def loading(comfy):
    """Puts adapters on the base one after the other, and nothing else."""

    def make(*names):
        prompt = {"0": node("CheckpointLoaderSimple", ckpt_name=BASE)}
        for number, name in enumerate(names):
            before = str(number)
            prompt[str(number + 1)] = node(
                "Likeness_LoadAdapter",
                model=[before, 0],
                clip=[before, 1],
                adapter=name,
                strength_model=1.0,
                strength_clip=1.0,
            )
        return prompt | {"show": node("PreviewAny", source=[str(len(names)), 0])}

    return make


LORA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"

BAD_ADAPTERS = {
    "for-xl": (
        {"lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k.lora_down.weight": [4, 2048]},
        "SDXL",
    ),
    "for-sd2": (
        {f"{LORA}.lora_down.weight": [4, 1024], f"{LORA}.lora_up.weight": [320, 4]},
        "1024 inputs",
    ),
    "half": ({f"{LORA}.lora_down.weight": [4, 768]}, "only one of its two"),
    "xl-checkpoint": (SDXL, "of the UNet differ"),
}


@pytest.mark.parametrize("name", BAD_ADAPTERS)
def test_an_adapter_for_another_model(comfy, loading, name):
    shapes, part = BAD_ADAPTERS[name]
    write_safetensors(comfy.home / "models" / "loras" / f"{name}.safetensors", shapes)
    outcome = comfy.run(loading(f"{name}.safetensors"))
    assert outcome.status == "error"
    message = outcome.error["exception_message"]
    assert part in message and f"{name}.safetensors" in message
    assert (f"{name}.safetensors does not fit" in message) == (name != "half")


def test_a_truncated_adapter(comfy, loading):
    shapes = {f"{LORA}.lora_down.weight": [4, 768], f"{LORA}.lora_up.weight": [320, 4]}
    write_safetensors(comfy.home / "models" / "loras" / "cut-lora.safetensors", shapes, cut=10)
    outcome = comfy.run(loading("cut-lora.safetensors"))
    assert outcome.status == "error"
    assert "cut-lora.safetensors is truncated" in outcome.error["exception_message"]


def test_a_full_fine_tune_behind_a_lora(comfy, loading):
    shapes = {f"{LORA}.lora_down.weight": [4, 768], f"{LORA}.lora_up.weight": [320, 4]}
    write_safetensors(comfy.home / "models" / "loras" / "first.safetensors", shapes)
    outcome = comfy.run(loading("first.safetensors", BASE))
    assert outcome.status == "error"
    assert "the LoRAs after it" in outcome.error["exception_message"]
    assert comfy.run(loading(BASE, "first.safetensors")).status == "success"


@pytest.mark.parametrize("name", ["gone.safetensors", "../x.safetensors", "C:\\x.safetensors"])
def test_an_adapter_that_is_not_listed(comfy, loading, name):
    assert "There is no LoRA or checkpoint" in comfy.refused(loading(name))
