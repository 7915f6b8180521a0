"""Class images on a GPU: in fp16, in CUDA graphs, as many at once as memory allows."""

import numpy as np
import pytest
import torch
from likeness.trainers import prior as module
from likeness.trainers.base_model import load_base
from likeness.trainers.class_image_files import image_path
from likeness.trainers.prior import draw_class_images
from likeness.trainers.recipe import Prior
from PIL import Image

SIZE, COUNT = 64, 6


@pytest.fixture
def drawn(places, tmp_path):
    """Draws class images; returns them, (COUNT, SIZE, SIZE, 3), and the notes."""

    def draw(name, device="cuda", **options):
        base = load_base(places.base, device=device)
        prior, notes = Prior(count=COUNT, steps=3, guidance=3.0), []
        draw_class_images(
            base, prior, ["a photo of man", "a man in a kitchen"], tmp_path / name,
            device=torch.device(device), size=SIZE, notice=notes.append, **options,
        )  # fmt: skip
        files = [image_path(tmp_path / name, number) for number in range(COUNT)]
        return np.stack([np.asarray(Image.open(file)) for file in files]).astype(int), notes

    return draw


def test_a_gpu_draws_what_a_cpu_draws_with_and_without_graphs(drawn):
    wanted, _ = drawn("cpu", "cpu")
    for graphs in (True, False):
        found, notes = drawn(f"graphs {graphs}", graphs=graphs)
        assert not notes
        assert np.abs(found - wanted).mean() < 1  # of 255: fp16


def test_a_full_gpu_draws_fewer_at_once(drawn, limited_memory, monkeypatch):
    sizes, real = [], module._ImageGenerator.images

    def images(self, indices):
        limited_memory(1 << 16 if len(indices) > 2 else 1 << 40)
        sizes.append(len(indices))
        return real(self, indices)

    plain, _ = drawn("plain")
    monkeypatch.setattr(module._ImageGenerator, "images", images)
    found, _ = drawn("full")
    assert sizes[0] == COUNT and sizes[-1] <= 2
    assert np.abs(found - plain).mean() < 1


def test_a_base_that_overflows_in_fp16_is_drawn_in_fp32(drawn, monkeypatch):
    real, calls = module._all_finite, []

    def first_not(latents):
        calls.append(True)
        return len(calls) > 1 and real(latents)

    wanted, _ = drawn("cpu", "cpu")
    monkeypatch.setattr(module, "_all_finite", first_not)
    found, notes = drawn("overflows")
    assert len(notes) == 1 and "use fp32" in notes[0]
    assert np.abs(found - wanted).max() <= 1
