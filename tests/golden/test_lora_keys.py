"""The tensors of an SD 1.5 LoRA, frozen: names and shapes that ComfyUI, A1111 and others read."""

import hashlib
from functools import cache
from math import prod

import pytest
import torch
from diffusers import UNet2DConditionModel
from likeness.trainers import disk_space, lora
from likeness.trainers.recipe import LoRA
from transformers import CLIPTextConfig, CLIPTextModel


@cache
def shapes(targets: str) -> dict[str, tuple[int, ...]]:
    """Of an SD 1.5 model without numbers."""
    method = LoRA(rank=4, targets=targets)
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
        text = CLIPTextConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
        )
        text_encoder = CLIPTextModel(text)
    lora.attach(unet, text_encoder, method, seed=0)
    tensors = lora.export(unet, text_encoder, method)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("targets", "unet", "text", "digest"),
    [
        ("attention", 128, 48, "728ed951e78a66955082160c8caf25b9f126f870322822e6fca255d5a19e0010"),
        ("linear", 192, 72, "b8973aebfbffa87ff9fc0f2d673cb502f997c645f0126d3d114a89ee01711f1d"),
        ("all", 278, 72, "3b3848c4a8334718f54b2f27e350146bfb9efbd1b5a398aa1df409257ef03cb2"),
    ],
)
def test_names_and_shapes_are_those_of_other_programs(
    targets: str, unet: int, text: int, digest: str
) -> None:
    """The counts are those that kohya's sd-scripts name for SD 1.5: 192 + 72, with LoCon 278."""
    found = shapes(targets)
    modules = {name.split(".")[0] for name in found}
    assert len(found) == 3 * len(modules)
    assert sum(name.startswith("lora_unet_") for name in modules) == unet
    assert sum(name.startswith("lora_te_text_model_encoder_layers_") for name in modules) == text
    listed = "\n".join(f"{name} {shape}" for name, shape in sorted(found.items()))
    assert hashlib.sha256(listed.encode()).hexdigest() == digest


@pytest.mark.parametrize("targets", disk_space.LORA_WEIGHTS)
def test_room_is_asked_for_by_the_weights_that_a_lora_has(targets: str) -> None:
    found = {name: prod(shape) for name, shape in shapes(targets).items() if shape}
    counts = (
        sum(count for name, count in found.items() if name.startswith(part))
        for part in ("lora_unet_", "lora_te_")
    )
    assert [count / 4 for count in counts] == list(disk_space.LORA_WEIGHTS[targets])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.alpha", ()),
        (
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
            (4, 320),
        ),
        (
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight",
            (4, 768),
        ),
        (
            "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_attn2_to_out_0.lora_up.weight",
            (320, 4),
        ),
        (
            "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_ff_net_0_proj.lora_up.weight",
            (10240, 4),
        ),
        ("lora_unet_down_blocks_1_attentions_0_proj_in.lora_down.weight", (4, 640, 1, 1)),
        ("lora_unet_down_blocks_2_downsamplers_0_conv.lora_down.weight", (4, 1280, 3, 3)),
        ("lora_unet_up_blocks_0_upsamplers_0_conv.lora_up.weight", (1280, 4, 1, 1)),
        ("lora_unet_up_blocks_3_resnets_0_conv_shortcut.lora_down.weight", (4, 960, 1, 1)),
        ("lora_unet_mid_block_resnets_1_time_emb_proj.lora_up.weight", (1280, 4)),
        ("lora_te_text_model_encoder_layers_0_self_attn_out_proj.lora_up.weight", (768, 4)),
        ("lora_te_text_model_encoder_layers_11_mlp_fc2.lora_down.weight", (4, 3072)),
    ],
)
def test_some_names_by_hand(name: str, shape: tuple[int, ...]) -> None:
    assert shapes("all")[name] == shape
