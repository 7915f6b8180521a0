"""ControlNets from files against diffusers' own, and in our sampler."""

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models import modeling_utils
from likeness.comparison.controlnet import controlnet_for_hint, load_controlnet
from likeness.comparison.errors import ComparisonError
from likeness.trainers import ldm_names
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def places(net, tmp_path_factory):
    """The ControlNet as the ecosystem's files have it."""
    folder = tmp_path_factory.mktemp("control")
    net.save_pretrained(folder / "diffusers")
    names = ldm_names.controlnet_names(net.config)
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
    down, middle = controlnet_for_hint(loaded, hint, 0.7)(x, timestep, states)
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
    wide = UNet2DConditionModel(**{**unet.config, "cross_attention_dim": 64})
    with pytest.raises(
        ComparisonError, match=r"another model family.*cross_attention_dim is 32.*is 64"
    ):
        load_controlnet(places["ldm"], wide)


def test_what_is_no_controlnet_is_refused(unet, tmp_path):
    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ComparisonError, match=r"not a ControlNet for SD 1\.x"):
        load_controlnet(tmp_path / "x.safetensors", unet)
    (tmp_path / "y.safetensors").write_bytes(b"damaged")
    with pytest.raises(ComparisonError, match=r"y\.safetensors cannot be used"):
        load_controlnet(tmp_path / "y.safetensors", unet)
    with pytest.raises(ComparisonError, match="does not exist"):
        load_controlnet(tmp_path / "gone.safetensors", unet)
    unet.save_pretrained(tmp_path / "unet")
    with pytest.raises(ComparisonError, match="unet cannot be used"):
        load_controlnet(tmp_path / "unet", unet)
