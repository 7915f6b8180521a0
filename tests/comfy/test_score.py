"""Score in a real ComfyUI, on cells that light nodes draw, with a CLIP of random weights."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(900)]

LIGHT = runpy.run_path(str(Path(__file__).with_name("light.py")))
ENCODERS = {"clip_image": "auto", "clip_text": "auto", "dinov2": "auto", "face": False}
PROMPTS = ("beach = a {token} {class} on the beach", "class = a {class} on the beach")


def write_clip(folder):
    """A CLIP of random weights as a transformers folder."""
    import torch
    from likeness.demo.random_model import write_small_tokenizer
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    size = write_small_tokenizer(folder)
    shared = {"hidden_size": 64, "intermediate_size": 96, "projection_dim": 24}
    shared |= {"num_hidden_layers": 1, "num_attention_heads": 1}
    ends = {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    text = CLIPTextConfig(vocab_size=size, **ends, **shared).to_dict()
    vision = CLIPVisionConfig(image_size=28, patch_size=14, **shared).to_dict()
    torch.manual_seed(0)
    CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    ).save_pretrained(folder)


@pytest.fixture
def server(light_server):
    """The light nodes' ComfyUI, with a CLIP and two photographs."""
    clip, photos = (light_server.home / f for f in ("models/clip_vision/tiny", "input/photos"))
    if not clip.is_dir():
        clip.mkdir(parents=True)
        photos.mkdir(parents=True)
        write_clip(clip)
        for number, colour in enumerate(("red", "blue")):
            Image.new("RGB", (512, 600), colour).save(photos / f"{number}.png")
    return light_server


def graph(name, **score):
    """A comparison of two rows and two prompts, two draws each, that is scored."""
    node = LIGHT["node"]
    rows, size = ("base", "one.safetensors"), {"width": 384, "height": 512}
    prompt = LIGHT["graph"](name, prompts=PROMPTS, adapters=rows, draws=2, **size)
    prompt["1"]["inputs"]["token"] = "sks"
    prompt["10"] = node(
        "Likeness_Subject",
        folder="photos", token="sks", class_word="dog", prompt="a photo of {token} {class}",
        resolution=512, crop="center",
    )  # fmt: skip
    inputs = {"study": ["7", 1], "subject": ["10", 0], **ENCODERS, **score}
    return {**prompt, "9": node("Likeness_Score", **inputs)}


def test_a_comparison_is_scored_and_reported_where_it_lies(server):
    said = []
    outcome = server.run(graph("scored"), said.append)
    assert outcome.status == "success", outcome.error
    folder = server.home / "output" / "likeness" / "comparisons" / "scored"
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    kinds = {measure["key"] for measure in scores["measures"]}
    assert kinds == {f"{kind}.clip" for kind in (
        "subject", "prompt", "nearest", "diversity", "drift", "leak",
    )}  # fmt: skip
    assert scores["row_names"] == ["base", "one"]
    assert all(-1 <= v <= 1 for v in scores["cells"]["subject.clip"] if v is not None)
    assert scores["rows"]["drift.clip"][0] is None
    assert scores["rows"]["drift.clip"][1]["mean"] != 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 8 and str(server.home) not in page
    shown = outcome.outputs["9"]
    assert "subject match" in shown["text"][0] and "DINOv2 is left out" in shown["text"][0]
    (image,) = shown["images"]
    assert (server.home / "output" / image["subfolder"] / image["filename"]).is_file()
    assert any(b"Scoring with CLIP (tiny)" in text for text in said if type(text) is bytes)
    again = server.run(graph("scored"))
    assert "9" in again.cached


def test_without_encoders_the_report_is_written_and_says_what_lacks(server):
    outcome = server.run(graph("bare", clip_image="none", dinov2="none"))
    assert outcome.status == "success", outcome.error
    (table,) = outcome.outputs["9"]["text"]
    assert "CLIP is left out" in table and "↑" not in table
    folder = server.home / "output" / "likeness" / "comparisons" / "bare"
    assert "CLIP is left out" in (folder / "report.html").read_text(encoding="utf-8")


def test_encoders_that_cannot_be_used_are_refused(server):
    # The sheet is an output of its own and is queued; the score is not.
    _, answer = server.post("/prompt", {"prompt": graph("wrong", clip_image="gone.safetensors")})
    assert "gone.safetensors" in json.dumps(answer["node_errors"]["9"])
    (server.home / "models" / "text_encoders").mkdir(exist_ok=True)
    (server.home / "models" / "text_encoders" / "t5.safetensors").write_bytes(b"damaged")
    outcome = server.run(graph("wrong", clip_text="t5.safetensors"))
    assert outcome.status == "error"
    assert "t5.safetensors cannot be used" in outcome.error["exception_message"]
