"""ControlNets from files against diffusers' own, and in our sampler."""

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models import modeling_utils
from likeness.comparison.controlnet import control_of, load_controlnet
from likeness.comparison.errors import ComparisonError
from likeness.trainers import ldm_names
from PIL import Image
from safetensors.torch import save_file

SHAPE = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 2,
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
}


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    up = ("CrossAttnUpBlock2D", "UpBlock2D")
    return UNet2DConditionModel(**SHAPE, up_block_types=up).eval()


@pytest.fixture(scope="module")
def net(unet):
    """A ControlNet that changes something: random where training starts at zero."""
    torch.manual_seed(1)
    made = ControlNetModel.from_unet(unet).eval()
    for parameter in made.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return made


@pytest.fixture(scope="module")
def places(net, tmp_path_factory):
    """The ControlNet as the ecosystem's files have it."""
    folder = tmp_path_factory.mktemp("control")
    net.save_pretrained(folder / "diffusers")
    names = ldm_names.controlnet_names(
        {**SHAPE, "conditioning_embedding_out_channels": (16, 32, 96, 256)}
    )
    state = ldm_names.to_ldm(net.state_dict(), names, ldm_names.CONTROL)
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "a.safetensors")
    bare = {key.removeprefix(ldm_names.CONTROL): value for key, value in state.items()}
    torch.save(bare, folder / "b.pth")
    return {
        "diffusers": folder / "diffusers",
        "ldm": folder / "a.safetensors",
        "pth": folder / "b.pth",
    }


def inputs():
    generator = torch.Generator().manual_seed(2)
    x, states = (torch.randn(2, *s, generator=generator) for s in ((4, 16, 16), (7, 32)))
    pixels = torch.randint(0, 256, (128, 128, 3), generator=generator, dtype=torch.uint8)
    return x, torch.tensor(500), states, Image.fromarray(pixels.numpy())


@pytest.mark.parametrize("kind", ["diffusers", "ldm", "pth"])
@torch.no_grad()
def test_residuals_are_those_of_diffusers(net, unet, places, kind):
    x, timestep, states, hint = inputs()
    loaded = load_controlnet(places[kind], unet)
    down, middle = control_of(loaded, hint, 0.7)(x, timestep, states)
    pixels = torch.tensor(np.asarray(hint)).permute(2, 0, 1)[None] / 255
    expected = net(x, timestep, states, pixels.repeat(2, 1, 1, 1), conditioning_scale=0.7)
    assert len(down) == len(expected.down_block_res_samples)
    for ours, theirs in zip(down, expected.down_block_res_samples, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(middle, expected.mid_block_res_sample)
    assert middle.abs().max() > 0.01


def test_loading_a_controlnet_warns_of_nothing(unet, places, monkeypatch):
    said = []
    monkeypatch.setattr(modeling_utils.logger, "warning", lambda text, *_: said.append(text))
    assert load_controlnet(places["ldm"], unet, dtype=torch.float16).dtype == torch.float16
    assert said == []


def test_a_controlnet_of_another_family_is_refused_by_name(unet, places):
    wide = UNet2DConditionModel(
        **{**SHAPE, "cross_attention_dim": 64}, up_block_types=("CrossAttnUpBlock2D", "UpBlock2D")
    )
    with pytest.raises(ComparisonError, match=r"another family.*cross_attention_dim is 32.*is 64"):
        load_controlnet(places["ldm"], wide)


def test_what_is_no_controlnet_is_refused(unet, tmp_path):
    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ComparisonError, match=r"no ControlNet for SD 1\.x"):
        load_controlnet(tmp_path / "x.safetensors", unet)
    (tmp_path / "y.safetensors").write_bytes(b"damaged")
    with pytest.raises(ComparisonError, match=r"y\.safetensors cannot be used"):
        load_controlnet(tmp_path / "y.safetensors", unet)
    with pytest.raises(ComparisonError, match="no such file"):
        load_controlnet(tmp_path / "gone.safetensors", unet)
    unet.save_pretrained(tmp_path / "unet")
    with pytest.raises(ComparisonError, match="unet cannot be used"):
        load_controlnet(tmp_path / "unet", unet)
