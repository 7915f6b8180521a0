"""Drawing and scoring on a GPU, beside the CPU."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from likeness.comparison.clip import load_clip
from likeness.comparison.controlnet import controlnet_for_hint, load_controlnet
from likeness.comparison.dino import load_dino
from likeness.comparison.encoders import EncoderFiles
from likeness.comparison.sample import draw, inference_dtype, load_with_adapter
from likeness.demo.random_model import write_random_model
from likeness.trainers.base_model import load_base
from PIL import Image

from ..unit.test_encoders import clip_folder  # noqa: F401

MODELS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "models.py"))


@pytest.fixture(scope="module")
def adapters(places, tmp_path_factory):
    """A LoRA and a full checkpoint of random weights, by kind, and none."""
    folder = tmp_path_factory.mktemp("adapters")
    adapter = MODELS["write_random_lora"](places.base, folder / "a.safetensors")
    tokenizer = places.base.with_name(f"{places.base.stem}_tokenizer")
    whole = write_random_model(folder / "whole.safetensors", seed=1, tokenizer=tokenizer)
    return {"none": None, "lora": adapter, "checkpoint": whole}


@pytest.mark.parametrize("kind", ["none", "lora", "checkpoint"])
def test_a_gpu_draws_what_a_cpu_draws(kind, places, adapters):
    def image(device, dtype):
        model = load_with_adapter(
            places.base, adapters[kind], strength=0.7, device=device, dtype=dtype
        )
        options = {"negative": "a dog", "width": 64, "height": 96, "steps": 3}
        return draw(model, ["a man in a kitchen"], **options)[0].astype(int)

    wanted = image("cpu", torch.float32)
    assert inference_dtype("cuda") == torch.float16
    assert np.abs(image("cuda", torch.float32) - wanted).max() <= 1
    assert np.abs(image("cuda", torch.float16) - wanted).mean() < 1  # of 255


def test_a_gpu_draws_poses_with_a_controlnet(places, tmp_path):
    net = ControlNetModel.from_unet(load_base(places.base).unet)
    with torch.no_grad():
        for parameter in net.parameters():  # those that would add nothing are 0
            parameter += 0.02 * torch.randn_like(parameter)
    net.save_pretrained(tmp_path / "net")
    hint = np.zeros((64, 64, 3), np.uint8)
    hint[20:40, 20:40] = 255
    images = []
    for device in ("cpu", "cuda"):
        model = load_with_adapter(places.base, None, device=device)
        control = load_controlnet(tmp_path / "net", model.unet, device=device, dtype=torch.float32)
        control = controlnet_for_hint(control, hint, 1.0)
        options = {"width": 64, "height": 64, "steps": 3, "control": control}
        images.append(draw(model, ["a man"], **options)[0].astype(int))
    assert np.abs(images[0] - images[1]).max() <= 1


def noise(count):
    return [Image.effect_noise((40, 40), 50 + n).convert("RGB") for n in range(count)]


def test_clip_scores_on_a_gpu_as_on_a_cpu(clip_folder):  # noqa: F811
    found, images = [], noise(3)
    for device in ("cpu", "cuda"):
        clip = load_clip(EncoderFiles(clip_image=clip_folder), lambda size, device=device: device)
        vectors = clip.encode(images)
        found.append((vectors, clip.prompt_match(vectors, ["a man", "a dog", "a man"])))
    for cpu, gpu in zip(*found, strict=True):
        np.testing.assert_allclose(gpu, cpu, atol=1e-4)


def test_dino_scores_on_a_gpu_as_on_a_cpu(tmp_path):
    from transformers import Dinov2Config, Dinov2Model

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}
    Dinov2Model(Dinov2Config(**small, patch_size=14)).save_pretrained(tmp_path)
    images = noise(2)
    cpu, gpu = (
        load_dino(tmp_path, device=lambda size, device=device: device).encode(images)
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(gpu, cpu, atol=1e-4)
