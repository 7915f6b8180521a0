"""The names and shapes of an SD 1.5 checkpoint, as ComfyUI 0.33 reads every one of them."""

import hashlib

import pytest
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from likeness.trainers import ldm_names
from transformers import CLIPTextConfig, CLIPTextModel

UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "transformer_layers_per_block": 1,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "use_linear_projection": False,
}
VAE = {
    "sample_size": 512,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
}
TEXT = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "projection_dim": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}
DIGEST = "bcf4603c65ebe128ddff3a53973ab8eac10a5560f7a17846af3c3026837b5295"


@pytest.fixture(scope="module")
def shapes():
    with init_empty_weights(include_buffers=False):
        unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
        text = CLIPTextModel(CLIPTextConfig(**TEXT))
    words = {k: v for k, v in text.state_dict().items() if not k.endswith("position_ids")}
    tensors = {
        **ldm_names.to_ldm(unet.state_dict(), ldm_names.unet_names(UNET), ldm_names.UNET),
        **ldm_names.to_ldm(vae.state_dict(), ldm_names.vae_names(VAE), ldm_names.VAE),
        **ldm_names.to_ldm(words, ldm_names.text_names(words), ldm_names.TEXT),
    }
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def test_every_name_and_shape(shapes):
    lines = "".join(f"{name} {list(shape)}\n" for name, shape in sorted(shapes.items()))
    assert hashlib.sha256(lines.encode()).hexdigest() == DIGEST


@pytest.mark.parametrize(
    ("prefix", "count"), [(ldm_names.UNET, 686), (ldm_names.VAE, 248), (ldm_names.TEXT, 196)]
)
def test_tensors_of_each_part(shapes, prefix, count):
    assert len(ldm_names.part(shapes, prefix)) == count


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.diffusion_model.time_embed.0.weight", (1280, 320)),
        ("model.diffusion_model.input_blocks.4.0.skip_connection.weight", (640, 320, 1, 1)),
        ("model.diffusion_model.input_blocks.6.0.op.weight", (640, 640, 3, 3)),
        (
            "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight",
            (1280, 768),
        ),
        ("model.diffusion_model.output_blocks.2.1.conv.weight", (1280, 1280, 3, 3)),
        ("model.diffusion_model.output_blocks.5.2.conv.weight", (1280, 1280, 3, 3)),
        ("model.diffusion_model.output_blocks.11.1.proj_in.weight", (320, 320, 1, 1)),
        ("model.diffusion_model.out.2.weight", (4, 320, 3, 3)),
        ("first_stage_model.encoder.down.2.block.0.nin_shortcut.weight", (512, 256, 1, 1)),
        ("first_stage_model.decoder.up.0.block.0.nin_shortcut.weight", (128, 256, 1, 1)),
        ("first_stage_model.decoder.mid.attn_1.q.weight", (512, 512, 1, 1)),
        ("first_stage_model.quant_conv.weight", (8, 8, 1, 1)),
        (
            "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
            (49408, 768),
        ),
        ("cond_stage_model.transformer.text_model.final_layer_norm.bias", (768,)),
    ],
)
def test_a_few_by_name(shapes, name, shape):
    assert shapes[name] == shape


@pytest.mark.parametrize(
    ("prefix", "infer", "config"),
    [
        (ldm_names.UNET, ldm_names.unet_config, UNET),
        (ldm_names.VAE, ldm_names.vae_config, VAE),
        (ldm_names.TEXT, ldm_names.text_config, TEXT),
    ],
)
def test_the_sizes_are_read_off_the_shapes(shapes, prefix, infer, config):
    assert infer(ldm_names.part(shapes, prefix)) == config
