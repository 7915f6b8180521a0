"""Class images of a base that draws wrong numbers."""

import pytest
import torch
from likeness.trainers import prior as module
from likeness.trainers.errors import RunFailed
from likeness.trainers.recipe import Prior

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Base:
    """A UNet that overflows in fp16."""

    def __init__(self, dtype):
        self.unet, self.vae = torch.nn.Linear(2, 2, dtype=dtype), None


def artist_of(base, device, monkeypatch, told=None):
    def latents(artist, indices):
        finite = artist.unet.weight.dtype is torch.float32
        return torch.full((len(indices), 4, 8, 8), 0.5 if finite else float("nan"))

    monkeypatch.setattr(module._Artist, "_latents", latents)
    monkeypatch.setattr(module, "decode", lambda vae, latents, batch: latents)
    notice = (told if told is not None else []).append
    return module._Artist(base, base.unet, Prior(), ["a man"], 64, 1, device, None, notice)


def test_what_overflows_in_fp16_is_drawn_in_fp32_and_said_once(monkeypatch):
    told, base = [], Base(torch.float16)
    artist = artist_of(base, CUDA, monkeypatch, told)
    for indices in ([0, 1], [2]):
        assert torch.isfinite(artist.draw(indices)).all()
    assert len(told) == 1 and "fp32" in told[0] and artist.exact


def test_a_base_of_wrong_numbers_is_an_error_and_no_black_picture(monkeypatch):
    artist = artist_of(Base(torch.float16), CPU, monkeypatch)
    with pytest.raises(RunFailed, match="wrong numbers"):
        artist.draw([0])
