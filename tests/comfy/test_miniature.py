"""The miniature is one of ComfyUI's own models, and is drawn there as it is in the terminal.

Its weights are the repository's; random ones stand in for them where there are none.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from likeness.demo import weights

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT, CONTROLNET = Path(weights.CHECKPOINT).name, Path(weights.CONTROLNET).name
POSITIVE, NEGATIVE = "a photo of a man sks, in the kitchen, standing", "blurry, deformed"
WIDTH, HEIGHT, STEPS, GUIDANCE, SEED = 96, 128, 8, 5.0, 7
STRENGTH = 0.8  # of the ControlNet

# Of 255: SaveImage cuts colours off to whole numbers, where we round them.
LEVELS = 1


@pytest.fixture(scope="module")
def comfy(miniature_server):
    """A server with the miniature, drawings of a person and a pose."""
    server = miniature_server({})
    shutil.copytree(ROOT / "demo" / "subject", server.home / "input" / "person")
    hint().save(server.home / "input" / "hint.png")
    return server


def hint():
    """A pose to follow, of the image's size."""
    from likeness.comparison.keypoints import yoga_poses
    from likeness.comparison.poses import draw_pose, fit_pose

    return draw_pose(fit_pose(yoga_poses()[0], WIDTH, HEIGHT), WIDTH, HEIGHT)


# Graphs


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def drawing(
    adapter=None, loader="Likeness_LoadAdapter", control=False, base=CHECKPOINT, text=POSITIVE
):
    """A prompt that draws with core's nodes, an adapter and a ControlNet if asked."""
    model, clip, positive, negative = ["1", 0], ["1", 1], ["3", 0], ["4", 0]
    prompt = {"1": node("CheckpointLoaderSimple", ckpt_name=base)}
    if adapter:
        name = {"LoraLoader": "lora_name"}.get(loader, "adapter")
        inputs = {"strength_model": 1.0, "strength_clip": 1.0, name: adapter}
        prompt["2"] = node(loader, model=model, clip=clip, **inputs)
        model, clip = ["2", 0], ["2", 1]
    prompt["3"] = node("CLIPTextEncode", clip=clip, text=text)
    prompt["4"] = node("CLIPTextEncode", clip=clip, text=NEGATIVE)
    prompt["5"] = node("EmptyLatentImage", width=WIDTH, height=HEIGHT, batch_size=1)
    if control:
        prompt["10"] = node("ControlNetLoader", control_net_name=CONTROLNET)
        prompt["11"] = node("LoadImage", image="hint.png")
        given = {"positive": positive, "negative": negative, "control_net": ["10", 0]}
        shares = {"strength": STRENGTH, "start_percent": 0.0, "end_percent": 1.0}
        prompt["12"] = node("ControlNetApplyAdvanced", image=["11", 0], **given, **shares)
        positive, negative = ["12", 0], ["12", 1]
    noise = {"seed": SEED, "steps": STEPS, "cfg": GUIDANCE, "denoise": 1.0}
    ways = {"sampler_name": "euler", "scheduler": "simple", "latent_image": ["5", 0]}
    given = {"model": model, "positive": positive, "negative": negative}
    prompt["6"] = node("KSampler", **given, **noise, **ways)
    prompt["7"] = node("VAEDecode", samples=["6", 0], vae=["1", 2])
    prompt["8"] = node("SaveImage", images=["7", 0], filename_prefix="image")
    return prompt


def drawn(comfy, prompt):
    """The image (h, w, 3) of a prompt, and what the server logged."""
    from PIL import Image

    outcome = comfy.run(prompt)
    assert outcome.status == "success", outcome.error.get("exception_message")
    saved = outcome.outputs["8"]["images"][0]
    with Image.open(comfy.home / "output" / saved["subfolder"] / saved["filename"]) as image:
        return np.asarray(image.convert("RGB")), outcome.log


def training(comfy, kind, base=CHECKPOINT, **widgets):
    """A prompt that trains a few steps at 64 px."""
    info = comfy.get("/object_info")

    def defaults(name):
        parts = info[name]["input"]
        specs = {**parts["required"], **parts.get("optional", {})}
        return {key: spec[1]["default"] for key, spec in specs.items() if "default" in spec[1]}

    small = {"folder": "person", "resolution": 64, "crop": "center"}
    few = {"base_model": base, "steps": 4, "optimizer": "adamw", "precision": "fp32"}
    subject = {**defaults("Likeness_Subject"), **small}
    train = {**defaults(kind), **few, **widgets}
    return {
        "1": node("Likeness_Subject", **subject),
        "2": node(kind, subject=["1", 0], **train),
        "3": node("PreviewAny", source=["2", 0]),
    }


def trained(comfy, kind, **widgets):
    """Name of the file that a training leaves."""
    outcome = comfy.run(training(comfy, kind, **widgets))
    assert outcome.status == "success", outcome.error.get("exception_message")
    return outcome.outputs["3"]["text"][0]


@pytest.fixture(scope="module")
def lora(comfy):
    return trained(comfy, "Likeness_TrainLoRA", learning_rate=0.05)


@pytest.fixture(scope="module")
def tuned(comfy):
    return trained(comfy, "Likeness_TrainDreamBooth", learning_rate=1e-3)


@pytest.fixture(scope="module")
def terminal(comfy):
    """Draws with our own sampler what `drawing` draws: adapter's path, with or without control."""
    from likeness.comparison.controlnet import controlnet_for_hint, load_controlnet
    from likeness.comparison.sample import draw, load_with_adapter

    size = {"width": WIDTH, "height": HEIGHT, "steps": STEPS, "seed": SEED}

    def image(adapter=None, control=False, base=comfy.models / weights.CHECKPOINT, text=POSITIVE):
        model, part = load_with_adapter(base, adapter), None
        if control:
            controlnet = load_controlnet(comfy.models / weights.CONTROLNET, model.unet)
            part = controlnet_for_hint(controlnet, hint(), STRENGTH)
        images = draw(model, [text], negative=NEGATIVE, guidance=GUIDANCE, control=part, **size)
        return images[0]

    return image


def far(a, b):
    """Mean and largest difference of two images, in levels of 255."""
    difference = np.abs(a.astype(int) - b)
    return SimpleNamespace(mean=difference.mean(), most=difference.max())


# Lists


def names(comfy, kind, widget):
    spec = comfy.get(f"/object_info/{kind}")[kind]["input"]["required"][widget]
    return spec[0] if isinstance(spec[0], list) else spec[1]["options"]


def test_its_files_are_in_the_lists_and_no_judge_is(comfy):
    assert names(comfy, "CheckpointLoaderSimple", "ckpt_name") == [CHECKPOINT]
    assert names(comfy, "ControlNetLoader", "control_net_name") == [CONTROLNET]
    assert names(comfy, "Likeness_TrainLoRA", "base_model") == [CHECKPOINT]


@pytest.mark.parametrize(
    ("kind", "widget", "usual"),
    [
        ("CheckpointLoaderSimple", "ckpt_name", "checkpoints/v1-5-pruned-emaonly-fp16.safetensors"),
        ("ControlNetLoader", "control_net_name", "controlnet/t2iadapter_openpose_sd14v1.pth"),
        ("Likeness_TrainLoRA", "base_model", "checkpoints/v1-5-pruned-emaonly-fp16.safetensors"),
    ],
)
def test_a_new_loader_does_not_begin_with_the_miniature(comfy, kind, widget, usual):
    file = comfy.home / "models" / usual
    file.touch()
    try:
        assert names(comfy, kind, widget)[0] == file.name
    finally:
        file.unlink()


# The same image on both paths


@pytest.mark.parametrize("control", [False, True], ids=["plain", "controlnet"])
@pytest.mark.parametrize("kind", ["base", "lora", "tuned"])
def test_comfyui_and_the_terminal_draw_the_same_image(comfy, terminal, request, kind, control):
    adapter = path = None
    if kind != "base":
        adapter = request.getfixturevalue(kind)
        path = comfy.home / "output" / {"lora": "loras"}.get(kind, "checkpoints") / adapter
    core, log = drawn(comfy, drawing(adapter, control=control))
    ours = terminal(path, control)
    found = far(core, ours)
    print(f"{kind}, control {control}: mean {found.mean:.4f}, at most {found.most} of 255")
    assert found.most <= LEVELS
    assert "missing" not in log and "no match" not in log
    if kind != "base" or control:
        assert far(ours, terminal()).mean > 1, "it must show, or nothing is compared"


def test_a_prompt_of_more_than_75_tokens_was_cut_in_the_terminal(comfy, terminal):
    """ComfyUI reads it in chunks of 75, and the negative prompt as often."""
    long = f"{POSITIVE}{', photo' * 35}, in the forest, with umbrella"
    ours = terminal(text=long)
    assert far(drawn(comfy, drawing(text=long))[0], ours).most <= LEVELS
    assert far(ours, terminal(text=f"{POSITIVE}{', photo' * 35}")).mean > 1, "the end must show"


def test_cores_lora_loader_draws_what_load_adapter_draws(comfy, lora):
    core, log = drawn(comfy, drawing(lora, loader="LoraLoader"))
    ours, _ = drawn(comfy, drawing(lora))
    assert np.array_equal(core, ours)
    assert "not loaded" not in log.lower()


def test_a_lora_that_learned_v_is_drawn_so_on_both_paths(comfy, terminal, lora):
    from likeness.trainers.adapter import PREDICTION_KEY, read_metadata
    from safetensors.torch import load_file, save_file

    folder = comfy.home / "output" / "loras"
    metadata = read_metadata(folder / lora).metadata | {PREDICTION_KEY: "v"}
    save_file(load_file(folder / lora), folder / "learned-v.safetensors", metadata)
    core, _ = drawn(comfy, drawing("learned-v.safetensors"))
    assert far(core, terminal(folder / "learned-v.safetensors")).most <= LEVELS
    assert far(core, terminal(folder / lora)).mean > 1, "it must show, or nothing is compared"


# Full fine-tunes


def test_a_fine_tune_opens_with_load_checkpoint(comfy, terminal, tuned):
    opened, _ = drawn(comfy, drawing(base=tuned))
    loaded, _ = drawn(comfy, drawing(tuned))
    assert np.array_equal(opened, loaded)
    path = comfy.home / "output" / "checkpoints" / tuned
    assert far(opened, terminal(base=path)).most <= LEVELS  # by the tokenizer beside it


def test_a_fine_tune_that_lost_its_tokenizer_is_trained_on(comfy, tuned):
    copy = comfy.home / "models" / "checkpoints" / "moved.safetensors"
    shutil.copy(comfy.home / "output" / "checkpoints" / tuned, copy)
    assert trained(comfy, "Likeness_TrainLoRA", base=copy.name, steps=1)


# Words


def test_words_that_it_never_saw_are_logged_once(comfy):
    log = ""
    for text in ("a photo of a zebra", "a (zebra:1.2) on a bicycle"):
        prompt = {
            "1": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
            "2": node("CLIPTextEncode", clip=["1", 1], text=text),
            "3": node("PreviewAny", source=["2", 0]),
        }
        log += comfy.run(prompt).log
    told = [line for line in log.splitlines() if "never saw" in line]
    assert [line.partition("caption: ")[2] for line in told] == ["zebra", "bicycle"]


# Without it


def test_the_pack_works_without_demo(tmp_path_factory, start_comfy, pack_copy):
    pack = pack_copy(tmp_path_factory.mktemp("pack") / "ComfyUI-Likeness", "demo")
    server = start_comfy(tmp_path_factory.mktemp("without"), pack)
    try:
        ours = json.loads((ROOT / "tests" / "golden" / "our_nodes.json").read_text("utf-8"))
        assert set(ours) <= set(server.get("/object_info"))
        assert names(server, "CheckpointLoaderSimple", "ckpt_name") == []
        assert "Traceback" not in server.log()
    finally:
        server.stop()


# Training from a LoRA file


def from_file(comfy, start, kind="Likeness_TrainLoRA"):
    """A prompt that starts a training so slow that it changes nothing from a LoRA."""
    prompt = training(comfy, kind, learning_rate=1e-9, name="again")
    prompt["4"] = node("Likeness_TrainOptions", start_from=start, save_dtype="fp32")
    prompt["2"]["inputs"]["options"] = ["4", 0]
    return prompt


def test_a_lora_that_starts_from_a_file_draws_what_the_file_draws(comfy, lora):
    outcome = comfy.run(from_file(comfy, lora))
    assert outcome.status == "success", outcome.error.get("exception_message")
    (again,) = outcome.outputs["3"]["text"]
    assert again != lora
    expected, _ = drawn(comfy, drawing(lora))
    found, _ = drawn(comfy, drawing(again))
    assert np.abs(found.astype(int) - expected).max() <= LEVELS
    base, _ = drawn(comfy, drawing())
    assert np.abs(base.astype(int) - expected).max() > 8, "the file has an effect"


def test_the_file_to_start_from_may_come_from_a_train_node(comfy):
    prompt = from_file(comfy, ["6", 0])
    first = training(comfy, "Likeness_TrainLoRA", learning_rate=0.05)
    prompt["6"] = first["2"]  # of the same subject
    outcome = comfy.run(prompt)
    assert outcome.status == "success", outcome.error.get("exception_message")


def test_a_dreambooth_training_does_not_start_from_a_lora(comfy, lora):
    outcome = comfy.run(from_file(comfy, lora, "Likeness_TrainDreamBooth"))
    assert outcome.status == "error"
    assert "set start_from of Train Options to none" in outcome.error["exception_message"]
