"""Class images of a base that draws wrong numbers."""

import numpy as np
import pytest
import torch
from likeness.trainers import prior as module
from likeness.trainers.errors import RunFailed
from likeness.trainers.recipe import Prior

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class UNet(torch.nn.Linear):
    """Overflows in fp16."""

    @property
    def dtype(self):
        return self.weight.dtype


class Base:
    def __init__(self):
        self.unet, self.vae = UNet(2, 2, dtype=torch.float16), None


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """Draws three class images on a device; the base, what was told, and the files."""

    def latents(artist, indices):
        finite = artist.unet.weight.dtype is torch.float32
        return torch.full((len(indices), 4, 8, 8), 0.5 if finite else float("nan"))

    def grey(vae, latents, batch):
        return np.full((len(latents), 64, 64, 3), 128, np.uint8)

    monkeypatch.setattr(module._Artist, "_latents", latents)
    monkeypatch.setattr(module, "decode", grey)
    base, told = Base(), []

    def run(device):
        module.draw_class_images(
            base, Prior(count=3), ["a man"], tmp_path, device=device, size=64, batch=2,
            notice=told.append, graphs=False,
        )  # fmt: skip
        return base, told

    run.folder = tmp_path
    return run


def test_what_overflows_in_fp16_is_drawn_in_fp32_and_said_once(draw):
    base, told = draw(CUDA)
    assert module.missing(draw.folder, 3) == []
    assert len(told) == 1 and "fp32" in told[0]
    assert base.unet.dtype is torch.float16, "the training has the weights as they were loaded"


def test_a_base_of_wrong_numbers_is_an_error_and_no_black_picture(draw):
    with pytest.raises(RunFailed, match="wrong numbers"):
        draw(CPU)
    assert module.missing(draw.folder, 3) == [0, 1, 2]
