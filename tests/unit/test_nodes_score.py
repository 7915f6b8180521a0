"""The Score node, over stand-ins for ComfyUI's modules."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from likeness.comparison.encoders import MissingEncoder
from likeness.comparison.matrix import Variant, plan
from likeness.comparison.prompts import prompt_set_from_text
from likeness.comparison.study import write_study
from likeness.trainers.errors import LikenessError
from likeness.trainers.recipe import Subject
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))
refused = STUB["refused"]


class Red:
    """The share of red in an image."""

    key, name, digest, identity_only = "red", "red", "d" * 64, False

    def encode(self, images):
        return np.array([[p.getpixel((4, 4))[0] / 100] for p in images], np.float32)

    def likeness(self, a, b):
        return 1 - np.abs(a.astype(float) - b.astype(float).T)


@pytest.fixture
def node(tmp_path, monkeypatch):
    """The module of the node; the models folders are below `tmp_path`."""

    def names(kind):
        folder = tmp_path / "models" / kind
        return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.safetensors"))

    STUB["install"](
        {
            "get_output_directory": lambda: str(tmp_path / "output"),
            "get_filename_list": names,
            "get_full_path": lambda kind, name: str(tmp_path / "models" / kind / name),
        }
    )
    module = importlib.import_module("likeness.nodes.score")
    said = []
    progress = lambda node_id: SimpleNamespace(set_status=said.append, show=lambda *a: None)  # noqa: E731
    monkeypatch.setattr(module, "Progress", progress)
    told = []
    monkeypatch.setattr(module, "send_event", lambda event, data: told.append((event, data)))
    monkeypatch.setattr(module, "publish", lambda hidden, *shown: told.append(shown))
    monkeypatch.setattr(module, "interrupted", lambda: False)
    monkeypatch.setattr(module, "encoder_device", lambda size: "cpu")
    monkeypatch.setattr(module, "training_device", lambda: "auto")
    monkeypatch.setattr(module, "tokenizer_folder", lambda: tmp_path / "tokenizer")
    workflow = {"nodes": [{"widgets_values": ["/srv/secret/x.safetensors"]}]}
    prompt = {"7": {"class_type": "Likeness_Score", "inputs": {}}}
    hidden = SimpleNamespace(unique_id="7", prompt=prompt, extra_pnginfo={"workflow": workflow})
    monkeypatch.setattr(module.Score, "hidden", hidden, raising=False)
    module.said, module.told = said, told
    yield module
    STUB["install"]()


@pytest.fixture
def study(tmp_path):
    text = "a = a {token} {class}\nb = {class} \U0001f600 \u0645\u0631"
    prompts = prompt_set_from_text(text).filled("sks", "dog")
    the_plan = plan([Variant(name="base"), Variant(name="r4", adapter="4" * 64)], prompts)
    images = []
    for red in (10, 20, 30, 40):
        images.append(tmp_path / f"{red}.png")
        Image.new("RGB", (64, 96), (red, 0, 0)).save(images[-1])
    return write_study(tmp_path / "output", "mine", the_plan, images, "png", {})[0]


@pytest.fixture
def source(tmp_path):
    """What the Subject node gives, with two photographs."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for red in (30, 50):
        Image.new("RGB", (80, 80), (red, 0, 0)).save(photos / f"{red}.png")
    return SimpleNamespace(spec=Subject(), folder=photos)


def run(node, study, **inputs):
    choices = {"clip_image": "auto", "clip_text": "auto", "dinov2": "auto", "face": False}
    return node.Score.execute(study=study, **{**choices, **inputs})


def test_scores_report_and_sheet_are_written_beside_the_comparison(
    node, study, source, tmp_path, monkeypatch
):
    monkeypatch.setattr(node, "judges", lambda: [lambda image: Red()])
    output = run(node, study, subject=source)
    sheet, table, report = output.args
    assert sheet.ndim == 4 and sheet.shape[0] == 1 and 0 <= sheet.min() < sheet.max() <= 1
    assert report == "likeness/comparisons/mine/report.html"
    html = (tmp_path / "output" / report).read_text(encoding="utf-8")
    assert "subject match" in html and "workflow.json" in html
    assert "/srv/secret" not in html and str(tmp_path) not in html
    assert "\U0001f600" in html
    scores = json.loads((study.folder / "scores.json").read_text(encoding="utf-8"))
    assert [round(v, 2) for v in scores["cells"]["subject.red"] if v is not None] == [0.7, 0.9]
    assert "r4" in table and "CLIP is left out" in table
    (image,) = output.ui["images"]
    assert (tmp_path / "output" / image["subfolder"] / image["filename"]).is_file()
    assert any("Scoring with red" in line for line in node.said)


def test_a_sheet_with_other_scores_has_another_name_for_the_browser_keeps_files_by_name(
    node, study, source, monkeypatch
):
    names = []
    for judges in ([], [lambda image: Red()]):
        monkeypatch.setattr(node, "judges", lambda judges=judges: judges)
        (image,) = run(node, study, subject=source).ui["images"]
        names.append(image["filename"])
    assert names[0] != names[1]


def test_without_any_encoder_there_is_a_report_and_no_number(node, study, monkeypatch):
    def none(image):
        raise MissingEncoder("The judge is left out: install it.")

    monkeypatch.setattr(node, "judges", lambda: [none])
    _, table, _ = run(node, study).args
    assert [line.split(" is left out")[0] for line in table.splitlines()][:3] == [
        "CLIP", "DINOv2", "The judge",
    ]  # fmt: skip
    assert not any(character in table for character in "[↑↓")
    html = (study.folder / "report.html").read_text(encoding="utf-8")
    assert "data:image/jpeg" in html and "The judge is left out" in html


def test_the_workflow_stays_out_where_comfyui_may_not_write_it(node, study, monkeypatch):
    monkeypatch.setattr(node, "judges", list)
    monkeypatch.setattr(node, "is_metadata_enabled", lambda: False)
    run(node, study)
    assert "workflow.json" not in (study.folder / "report.html").read_text(encoding="utf-8")


def test_a_prompt_that_a_program_sent_is_the_way_to_repeat_it(node, study, monkeypatch):
    monkeypatch.setattr(node, "judges", list)
    monkeypatch.setattr(node.Score.hidden, "extra_pnginfo", None)
    run(node, study)
    assert "prompt.json" in (study.folder / "report.html").read_text(encoding="utf-8")


def test_encoders_are_found_among_comfyuis_models_by_their_headers(node, tmp_path):
    import torch
    from safetensors.torch import save_file

    images, texts = (tmp_path / "models" / kind for kind in ("clip_vision", "text_encoders"))
    for folder in (images / "dino", texts):
        folder.mkdir(parents=True)
    none = node.encoder_files("auto", "auto", "auto", True)
    assert (none.clip_image, none.clip_text, none.dino) == (None, None, None)
    projection = {"visual_projection.weight": torch.zeros(24, 64)}
    save_file({"x": torch.zeros(2)}, images / "a-siglip.safetensors")
    save_file(projection, images / "b-clip.safetensors")
    save_file({"y": torch.zeros(2)}, images / "dino" / "model.safetensors")
    (images / "dino" / "config.json").write_text('{"model_type": "dinov2"}')
    save_file({"text_projection.weight": torch.zeros(32, 64)}, texts / "a-other.safetensors")
    save_file({"text_projection.weight": torch.zeros(24, 64)}, texts / "b-fits.safetensors")
    found = node.encoder_files("auto", "auto", "auto", True)
    assert found.clip_image == images / "b-clip.safetensors"
    assert found.clip_text == texts / "b-fits.safetensors"
    assert found.dino == images / "dino"
    chosen = node.encoder_files("a-siglip.safetensors", "none", "none", False)
    assert chosen.clip_image == images / "a-siglip.safetensors"
    assert (chosen.clip_text, chosen.dino, chosen.face) == (None, None, False)
    check = node.Score.validate_inputs
    assert check(clip_image="auto", clip_text="b-fits.safetensors") is True
    assert "gone.safetensors" in refused(check, clip_image="gone.safetensors")


class Full(Red):
    """An encoder that the GPU has no room for."""

    def __init__(self, device):
        self.device = device

    def encode(self, images):
        if self.device(10) == "cuda":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GB")
        return super().encode(images)


def test_a_gpu_without_room_for_an_encoder_ended_the_queue_after_all_was_drawn(
    node, study, source, monkeypatch
):
    asked = []

    def find(files, more, device, image):
        return [Full(device)], []

    monkeypatch.setattr(node, "find_encoders", find)
    monkeypatch.setattr(node, "encoder_device", lambda size: asked.append(size) or "cuda")
    _, table, _ = run(node, study, subject=source).args
    assert asked == [10]
    assert node.CPU_FALLBACK in node.said and node.CPU_FALLBACK in table
    monkeypatch.setattr(node, "training_device", lambda: "cpu")
    for file in (study.folder.parents[1] / "cache").rglob("*.npy"):
        file.unlink()
    with pytest.raises(RuntimeError, match="out of memory"):
        run(node, study, subject=source)


def test_a_cancel_was_heeded_only_when_an_encoder_had_seen_all_images(
    node, study, source, monkeypatch
):
    class Cancelled(BaseException):
        pass

    seen = []

    class Face(Red):
        identity_only = True

        def encode(self, images):
            seen.append(len(images))
            return super().encode(images)

    def interrupted():
        if len(seen) == 3:
            raise Cancelled

    shown = []
    bar = SimpleNamespace(set_status=lambda line: None, show=lambda *part: shown.append(part))
    monkeypatch.setattr(node, "Progress", lambda node_id: bar)
    monkeypatch.setattr(node, "judges", lambda: [lambda image: Face()])
    monkeypatch.setattr(node, "interrupted", interrupted)
    with pytest.raises(Cancelled):
        run(node, study, subject=source)
    assert seen == [1, 1, 1]
    assert shown == [(0, 2), (1, 2), (2, 2), (0, 4)]


def test_an_image_that_is_gone_is_an_empty_frame_and_no_score(node, study, monkeypatch):
    monkeypatch.setattr(node, "judges", lambda: [lambda image: Red()])
    study.images[3].unlink()
    run(node, study)
    html = (study.folder / "report.html").read_text(encoding="utf-8")
    assert "3 of 4 images" in html and "not generated" in html


def test_a_damaged_image_is_named(node, study, monkeypatch):
    monkeypatch.setattr(node, "judges", lambda: [lambda image: Red()])
    study.images[0].write_bytes(b"no image")
    with pytest.raises(LikenessError, match=r"10\.png cannot be scored"):
        run(node, study)


def test_scores_are_computed_again_when_an_encoder_was_installed_or_replaced(node, tmp_path):
    seen = [node.Score.fingerprint_inputs()]
    images = tmp_path / "models" / "clip_vision"
    images.mkdir(parents=True)
    for content in (b"one", b"another"):
        (images / "clip.safetensors").write_bytes(content)
        seen.append(node.Score.fingerprint_inputs(clip_image="auto"))
    (images / "clip.safetensors").unlink()
    assert node.Score.fingerprint_inputs() == seen[0]
    assert len(set(seen)) == 3


def test_a_link_that_leads_nowhere_is_no_encoder(node, tmp_path):
    folder = tmp_path / "models" / "clip_vision"
    folder.mkdir(parents=True)
    full = sys.modules["folder_paths"].get_full_path
    lost = lambda kind, name: None if name == "lost.safetensors" else full(kind, name)  # noqa: E731
    sys.modules["folder_paths"].get_full_path = lost
    (folder / "lost.safetensors").symlink_to(tmp_path / "unplugged" / "lost.safetensors")
    before = node.Score.fingerprint_inputs()
    assert node.encoder_files("none", "none", "none", False).clip_image is None
    assert before == node.Score.fingerprint_inputs()
