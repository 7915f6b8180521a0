"""What DreamBooth learns can be saved, or it is said before it is learned."""

from dataclasses import replace

import pytest
from diffusers import AutoencoderKL, UNet2DConditionModel
from likeness.demo.random_model import write_random_model
from likeness.trainers.base_model import load_base
from likeness.trainers.errors import BaseModelError
from likeness.trainers.single_file import check_savable, single_file_state


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_base(write_random_model(tmp_path_factory.mktemp("models") / "tiny.safetensors"))


def with_unet(model, **settings):
    known = {key: value for key, value in model.unet.config.items() if not key.startswith("_")}
    return replace(model, unet=UNet2DConditionModel(**{**known, **settings}))


def test_a_file_shares_the_models_memory(model):
    check_savable(model)
    state = single_file_state(model.unet, model.text_encoder, model.vae)
    weight = state["model.diffusion_model.out.2.weight"]
    assert weight.data_ptr() == model.unet.conv_out.weight.data_ptr()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"time_cond_proj_dim": 16}, r"UNet .*time_embedding\.cond_proj\.weight"),  # of an LCM
        ({"mid_block_type": None}, r"UNet .*middle_block\.1\."),  # of BK-SDM
        ({"attention_head_dim": 4}, "attention_head_dim is 4"),
    ],
    ids=["LCM", "BK-SDM", "heads"],
)
def test_dreambooth_trained_to_the_end_on_bases_that_it_could_not_save(model, settings, says):
    with pytest.raises(BaseModelError, match=rf"{says}.*train a LoRA"):
        check_savable(with_unet(model, **settings))


def test_a_norm_that_a_single_file_cannot_tell_is_refused(model):
    levels = model.vae.config.block_out_channels
    down, up = model.vae.config.down_block_types, model.vae.config.up_block_types
    vae = AutoencoderKL(
        block_out_channels=levels, down_block_types=down, up_block_types=up, norm_num_groups=16
    )
    with pytest.raises(BaseModelError, match="norm_num_groups is 16"):
        check_savable(replace(model, vae=vae))
