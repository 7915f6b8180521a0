import json

import pytest
from likeness.trainers.adapter_names import (
    LORA_ADAPTER_METADATA_KEY,
    declared_alphas,
    file_alpha,
    guess_family,
    kohya_name,
    module_name,
    split_name,
    to_kohya_keys,
)
from likeness.trainers.errors import AdapterError
from likeness.trainers.recipe import LoRA

Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA_Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
OUT = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
KOHYA_OUT = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0"
COMFY_TEXT = "text_encoders.clip_l.transformer.text_model.encoder.layers.3.self_attn.q_proj"
KOHYA_TEXT = "lora_te_text_model_encoder_layers_3_self_attn_q_proj"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # kohya and LyCORIS: as they are
        (f"{KOHYA_Q}.lora_down.weight", f"{KOHYA_Q}.lora_down.weight"),
        (f"{KOHYA_Q}.hada_w1_a", f"{KOHYA_Q}.hada_w1_a"),
        # kohya's modules with PEFT's endings
        (f"{KOHYA_Q}.lora_A.weight", f"{KOHYA_Q}.lora_down.weight"),
        (f"{KOHYA_TEXT}.lora_B.default.weight", f"{KOHYA_TEXT}.lora_up.weight"),
        # diffusers, from the oldest form to today's
        (f"{Q[:-4]}processor.to_q_lora.down.weight", f"{KOHYA_Q}.lora_down.weight"),
        (f"unet.{Q[:-4]}processor.to_q_lora.up.weight", f"{KOHYA_Q}.lora_up.weight"),
        (f"unet.{OUT[:-8]}processor.to_out_lora.up.weight", f"{KOHYA_OUT}.lora_up.weight"),
        (f"unet.{Q}.lora.down.weight", f"{KOHYA_Q}.lora_down.weight"),
        (f"unet.{OUT}.lora_B.weight", f"{KOHYA_OUT}.lora_up.weight"),
        (f"unet.{Q}.lora_magnitude_vector", f"{KOHYA_Q}.lora_magnitude_vector"),
        (f"unet.{Q}.alpha", f"{KOHYA_Q}.alpha"),
        ("unet.conv_in.lora.down.weight", "lora_unet_conv_in.lora_down.weight"),
        # PEFT
        (f"base_model.model.{Q}.lora_A.weight", f"{KOHYA_Q}.lora_down.weight"),
        (f"base_model.model.{Q}.lora_A.default.weight", f"{KOHYA_Q}.lora_down.weight"),
        (f"unet.base_model.model.{Q}.lora_B.weight", f"{KOHYA_Q}.lora_up.weight"),
        (
            f"base_model.model.{Q}.lora_magnitude_vector.default.weight",
            f"{KOHYA_Q}.lora_magnitude_vector",
        ),
        # text encoder: transformers 4 and 5, and diffusers' first names
        *(
            (f"{prefix}encoder.layers.3.self_attn.{rest}", f"{KOHYA_TEXT}.lora_down.weight")
            for prefix, rest in [
                ("text_encoder.text_model.", "q_proj.lora_linear_layer.down.weight"),
                ("text_encoder.text_model.", "to_q_lora.down.weight"),
                ("text_encoder.", "q_proj.lora_A.weight"),
                ("base_model.model.text_model.", "q_proj.lora_A.weight"),
                ("base_model.model.", "q_proj.lora_A.weight"),
            ]
        ),
        # of none of these: as they are
        ("text_encoder_2.text_model.encoder.layers.3.self_attn.q_proj.lora_A.weight",) * 2,
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight",) * 2,
        # ComfyUI's own nodes: as they are
        ("diffusion_model.out.2.diff_b",) * 2,
        ("diffusion_model.out.2.lora_A.weight", "diffusion_model.out.2.lora_down.weight"),
        (f"{COMFY_TEXT}.lora_B.weight", f"{COMFY_TEXT}.lora_up.weight"),
        # diffusers' advanced script and SimpleTuner
        ("lora_te1_text_model_encoder_layers_3_self_attn_q_proj.alpha", f"{KOHYA_TEXT}.alpha"),
        (f"lycoris_{KOHYA_Q[10:]}.lora_up.weight", f"{KOHYA_Q}.lora_up.weight"),
        (f"{KOHYA_Q}.lora_magnitude_vector.weight", f"{KOHYA_Q}.lora_magnitude_vector"),
        ("diffusion_model.input_blocks.1.1.proj_in.lora_up.weight",) * 2,
        ("anything",) * 2,
    ],
)
def test_a_tensor_gets_its_kohya_name(name: str, expected: str) -> None:
    assert kohya_name(name) == expected


def test_both_namings_of_the_text_encoder_are_one() -> None:
    path = "encoder.layers.3.self_attn.q_proj"
    assert module_name("text_encoder", path) == KOHYA_TEXT
    assert module_name("text_encoder", f"text_model.{path}") == KOHYA_TEXT


@pytest.mark.parametrize(
    ("name", "module", "ending"),
    [
        (f"{KOHYA_Q}.lora_down.weight", KOHYA_Q, "lora_down.weight"),
        (f"{KOHYA_Q}.hada_w1_a", KOHYA_Q, "hada_w1_a"),
        (f"{KOHYA_Q}.new_kind.weight", KOHYA_Q, "new_kind.weight"),
        ("diffusion_model.out.2.diff_b", "diffusion_model.out.2", "diff_b"),
        ("diffusion_model.out.2.lora_up.weight", "diffusion_model.out.2", "lora_up.weight"),
        ("anything", "anything", ""),
    ],
)
def test_a_name_is_a_module_and_what_follows_it(name: str, module: str, ending: str) -> None:
    assert split_name(name) == (module, ending)


def test_two_names_of_one_tensor_are_refused() -> None:
    with pytest.raises(AdapterError, match="twice"):
        to_kohya_keys({f"unet.{Q}.lora_A.weight": 1, f"{KOHYA_Q}.lora_down.weight": 2})


def test_file_alpha_scales_as_peft_does() -> None:
    assert file_alpha(LoRA(rank=4)) / 4 == 1
    assert file_alpha(LoRA(rank=4, alpha=3)) / 4 == 3 / 4
    assert file_alpha(LoRA(rank=4, alpha=3, rslora=True)) / 4 == pytest.approx(3 / 2)


SHAPES = {f"{KOHYA_Q}.lora_down.weight": (4, 320), f"{KOHYA_TEXT}.lora_down.weight": (16, 768)}


def test_alphas_come_from_diffusers_metadata() -> None:
    config = {"unet.lora_alpha": 8, "text_encoder.lora_alpha": 2, "text_encoder.use_rslora": True}
    alphas = declared_alphas(SHAPES, {LORA_ADAPTER_METADATA_KEY: json.dumps(config)})
    assert alphas == {f"{KOHYA_Q}.alpha": 8.0, f"{KOHYA_TEXT}.alpha": 8.0}  # 2·sqrt(16)


def test_alphas_come_from_peft_configuration() -> None:
    alphas = declared_alphas(
        SHAPES, {LORA_ADAPTER_METADATA_KEY: json.dumps({"r": 4, "lora_alpha": 6})}
    )
    assert alphas == {f"{KOHYA_Q}.alpha": 6.0, f"{KOHYA_TEXT}.alpha": 6.0}


def test_no_alpha_is_made_up() -> None:
    assert declared_alphas(SHAPES, {}) == {}
    given = {**SHAPES, f"{KOHYA_Q}.alpha": (), f"{KOHYA_TEXT}.alpha": ()}
    assert declared_alphas(given, {LORA_ADAPTER_METADATA_KEY: '{"lora_alpha": 6}'}) == {}


def test_an_alpha_of_its_own_was_refused() -> None:
    config = {"unet.lora_alpha": 6, "unet.alpha_pattern": {f"^{Q}": 0, f"{OUT}": 3}}
    alphas = declared_alphas(SHAPES, {LORA_ADAPTER_METADATA_KEY: json.dumps(config)})
    assert alphas == {f"{KOHYA_Q}.alpha": 0.0}


@pytest.mark.parametrize(
    "text", ["[]", "{", *(f'{{"unet.alpha_pattern": {{"{key}": 2}}}}' for key in ("to_q", ".*q"))]
)
def test_metadata_that_cannot_be_followed_is_refused(text: str) -> None:
    with pytest.raises(AdapterError):
        declared_alphas(SHAPES, {LORA_ADAPTER_METADATA_KEY: text})


COMFY_CROSS = "transformer_blocks.0.attn2.to_k.lora_down.weight"
CROSS = "attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        ({f"lora_unet_down_blocks_0_{CROSS}": (4, 768)}, "SD 1.x LoRA"),
        ({f"unet.{Q.replace('attn1.to_q', 'attn2.to_v')}.lora_A.weight": (4, 768)}, "SD 1.x LoRA"),
        ({f"lora_unet_down_blocks_0_{CROSS}": (4, 1024)}, "SD 2.x LoRA"),
        ({f"lora_unet_down_blocks_1_{CROSS}": (4, 2048)}, "SDXL LoRA"),
        ({f"lora_unet_input_blocks_4_1_{CROSS[13:]}": (4, 2048)}, "SDXL LoRA"),
        ({f"diffusion_model.input_blocks.1.1.{COMFY_CROSS}": (4, 768)}, "SD 1.x LoRA"),
        ({f"diffusion_model.input_blocks.4.1.{COMFY_CROSS}": (4, 2048)}, "SDXL LoRA"),
        (
            {"diffusion_model.input_blocks.1.1.proj_in.lora_up.weight": (8, 4)},
            "Stable Diffusion LoRA",
        ),
        (
            {"diffusion_model.blocks.0.self_attn.q.lora_up.weight": (8, 4)},
            "LoRA of a transformer model",
        ),
        ({"diffusion_model.input_blocks.1.1.norm.diff": (320,)}, "Stable Diffusion LoRA"),
        ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha": ()}, "SDXL LoRA"),
        ({f"{KOHYA_TEXT}.lora_down.weight": (4, 768)}, "Stable Diffusion LoRA"),
        ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 3072)}, "FLUX LoRA"),
        (
            {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (4, 3072)},
            "FLUX LoRA",
        ),
        ({"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": (4, 1536)}, "SD 3 LoRA"),
        ({"double_blocks.0.img_attn.qkv.weight": (9216, 3072)}, "FLUX model"),
        ({"model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.bias": (4,)}, "SD 3 model"),
        ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "ControlNet"),
        ({"ip_adapter.1.to_k_ip.weight": (320, 768)}, "IP-Adapter"),
        ({f"{KOHYA_Q}.hada_w1_a": (320, 4)}, "LoHa"),
        ({f"{KOHYA_Q}.lokr_w1": (8, 8)}, "LoKr"),
        ({"emb_params": (4, 768)}, "textual inversion"),
        ({"<my-dog>": (1, 768)}, "textual inversion"),
        (
            {"cond_stage_model.transformer.x": (1,), "model.diffusion_model.y": (1,)},
            "SD 1.x checkpoint",
        ),
        ({"cond_stage_model.model.ln_final.weight": (1024,)}, "SD 2.x checkpoint"),
        ({"conditioner.embedders.0.x": (1,), "model.diffusion_model.y": (1,)}, "SDXL checkpoint"),
        (
            {"down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3), "a": (1,)},
            "part of a diffusers model",
        ),
        ({}, "unknown kind"),
    ],
)
def test_a_family_is_told_from_its_names(shapes: dict, family: str) -> None:
    assert guess_family(shapes) == family
