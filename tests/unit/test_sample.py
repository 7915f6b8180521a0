"""Models that draw from the terminal."""

import numpy as np
import pytest
from diffusers import ControlNetModel
from likeness.comparison import sample
from likeness.comparison.controlnet import load_controlnet
from likeness.demo.random_model import write_random_model
from likeness.trainers import cpu
from likeness.trainers.cpu import MatrixConv2d


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [write_random_model(folder / f"{n}.safetensors", seed=n, dtype="fp32") for n in (0, 1)]


def products(model):
    return sum(isinstance(module, MatrixConv2d) for module in model.modules())


def test_pictures_on_a_cpu_took_longer_than_with_a_pipeline(base, monkeypatch):
    """Trainings had matrix products in place of small convolutions, and drawings had not."""
    fast = sample.load_with_adapter(*base)
    assert products(fast.unet) > 0
    monkeypatch.setattr(cpu, "use_matrix_products", lambda model: None)
    plain = sample.load_with_adapter(*base)
    assert products(plain.unet) == 0
    asked = {"width": 64, "height": 64, "steps": 2}
    one, other = (sample.draw(model, ["a man"], **asked)[0] for model in (fast, plain))
    assert np.abs(one.astype(int) - other).max() <= 1


def test_a_controlnet_on_a_cpu_has_matrix_products_too(base, tmp_path):
    unet = sample.load_with_adapter(base[0], None).unet
    ControlNetModel.from_unet(unet).save_pretrained(tmp_path)
    assert products(load_controlnet(tmp_path, unet)) > 0
