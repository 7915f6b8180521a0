"""Every tensor has one name on each side, and the sizes of a model are read off its shapes."""

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from likeness.trainers import ldm_names
from transformers import CLIPTextConfig, CLIPTextModel

UNETS = {
    "like SD 1.5": ((True, True, True, False), 2),
    "attention only in the middle": ((False, False), 1),
    "no attention at the top": ((False, True, True), 1),
    "one level": ((True,), 3),
}


def unet_of(attends: tuple[bool, ...], layers: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=tuple(32 * (level + 1) for level in range(len(attends))),
        layers_per_block=layers,
        cross_attention_dim=24,
        attention_head_dim=8,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]),
    )


def shapes_of(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def assert_same(state, again):
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)


def assert_config(inferred, config):
    assert {key: config[key] for key in inferred} == inferred


@pytest.mark.parametrize(("attends", "layers"), UNETS.values(), ids=UNETS)
def test_unet_of_any_depth_comes_back(attends, layers):
    unet = unet_of(attends, layers)
    state = unet.state_dict()
    ldm = ldm_names.to_ldm(state, ldm_names.unet_names(unet.config), "")
    assert len(ldm) == len(state)
    config = ldm_names.unet_config(shapes_of(ldm))
    assert_config(config | {"sample_size": 8}, unet.config)
    again, unknown = ldm_names.from_ldm(ldm, ldm_names.unet_names(config))
    assert not unknown
    assert_same(state, again)


def test_vae_comes_back_and_its_attention_is_a_convolution_in_the_file():
    vae = AutoencoderKL(
        block_out_channels=(32, 64, 32),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    )
    ldm = ldm_names.to_ldm(vae.state_dict(), ldm_names.vae_names(vae.config), "")
    assert ldm["decoder.mid.attn_1.proj_out.weight"].shape == (32, 32, 1, 1)
    assert ldm["decoder.up.2.block.0.conv1.weight"].shape[:2] == (32, 32)  # the lowest resolution
    config = ldm_names.vae_config(shapes_of(ldm))
    assert_config(config | {"sample_size": vae.config.sample_size}, vae.config)
    again, unknown = ldm_names.from_ldm(ldm, ldm_names.vae_names(config))
    assert not unknown
    assert_same(vae.state_dict(), again)


def test_tiny_vae_takes_taesd_names():
    vae = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    names = ldm_names.tiny_vae_names(vae.config)
    ldm = ldm_names.to_ldm(vae.state_dict(), names, "")
    # TAESD (github.com/madebyollin/taesd): clamp 0, convolution 1, ReLU 2, blocks 3 to 5, …
    assert "taesd_decoder.1.weight" in ldm
    assert "taesd_decoder.3.conv.0.weight" in ldm
    assert "taesd_decoder.7.bias" not in ldm
    assert ldm["taesd_decoder.19.weight"].shape[0] == 3
    assert ldm["taesd_encoder.14.weight"].shape[0] == 4
    assert_config(ldm_names.tiny_vae_config(shapes_of(ldm)), vae.config)
    assert_same(vae.state_dict(), ldm_names.from_ldm(ldm, names)[0])


def test_controlnet_comes_back():
    net = ControlNetModel.from_unet(unet_of((True, False), 2))
    names = ldm_names.controlnet_names(net.config)
    ldm = ldm_names.to_ldm(net.state_dict(), names, ldm_names.CONTROL)
    for name in (
        "input_hint_block.0",
        "input_hint_block.14",
        "zero_convs.5.0",
        "middle_block_out.0",
    ):
        assert f"control_model.{name}.weight" in ldm
    part = ldm_names.part(ldm, ldm_names.CONTROL)
    again, unknown = ldm_names.from_ldm(part, names)
    assert not unknown
    assert_same(net.state_dict(), again)


def test_text_encoder_is_read_with_and_without_text_model():
    config = CLIPTextConfig(
        vocab_size=99, hidden_size=128, intermediate_size=256, num_hidden_layers=3,
        num_attention_heads=2, bos_token_id=97, eos_token_id=98,
    )  # fmt: skip
    state = CLIPTextModel(config).state_dict()
    bare = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    ldm = ldm_names.to_ldm(state, ldm_names.text_names(state), ldm_names.TEXT)
    assert all(name.startswith("cond_stage_model.transformer.text_model.") for name in ldm)
    older = {f"text_model.{name}": tensor for name, tensor in bare.items()}  # transformers 4
    assert_same(ldm, ldm_names.to_ldm(older, ldm_names.text_names(older), ldm_names.TEXT))
    short = {name.replace("transformer.text_model.", "transformer."): t for name, t in ldm.items()}
    assert_same(ldm_names.part(ldm, ldm_names.TEXT), ldm_names.part(short, ldm_names.TEXT))
    inferred = ldm_names.text_config(shapes_of(bare))
    for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"):
        assert inferred[key] == getattr(config, key)
    assert inferred["num_attention_heads"] == 2


def test_a_tensor_outside_the_table_is_not_lost_silently():
    names = ldm_names.unet_names(unet_of((True,), 1).config)
    with pytest.raises(KeyError, match="lora"):
        ldm_names.to_ldm({"lora.weight": torch.zeros(1)}, names, "")
    known, unknown = ldm_names.from_ldm({"label_emb.0.0.weight": torch.zeros(1)}, names)
    assert (known, unknown) == ({}, ["label_emb.0.0.weight"])
