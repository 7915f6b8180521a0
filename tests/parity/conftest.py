import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from likeness.demo.random_model import write_random_model
from likeness.trainers.places import Places
from PIL import Image

SHAPE = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 2,
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A tiny base with random weights and three smooth random photographs."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "photos").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)
        image.save(folder / "photos" / f"{i}.png")
    return Places(
        base=write_random_model(folder / "base.safetensors", dtype="fp32"),
        photos=folder / "photos",
        runs=folder / "runs",
        loras=folder / "loras",
        checkpoints=folder / "checkpoints",
        cache=folder / "cache",
    )


@pytest.fixture(scope="module")
def unet():
    """A small UNet with two levels and random weights."""
    torch.manual_seed(0)
    up = ("CrossAttnUpBlock2D", "UpBlock2D")
    return UNet2DConditionModel(**SHAPE, up_block_types=up).eval()


@pytest.fixture(scope="module")
def net(unet):
    """A ControlNet with an effect: random where training would start at zero."""
    torch.manual_seed(1)
    made = ControlNetModel.from_unet(unet).eval()
    for parameter in made.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return made
