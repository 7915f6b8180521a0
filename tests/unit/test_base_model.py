"""A checkpoint loads from every form it comes in, and comes back bit for bit."""

import json

import pytest
import torch
from diffusers import AutoencoderTiny, DDPMScheduler
from likeness.demo.random_model import write_random_model, write_small_tokenizer
from likeness.demo.tokenizer import write_tokenizer
from likeness.trainers import ldm_names
from likeness.trainers.base_file import identify
from likeness.trainers.base_model import load_base
from likeness.trainers.errors import BaseModelError
from likeness.trainers.single_file import save_single_file
from safetensors.torch import load_file, save_file

PARTS = ("unet", "vae", "text_encoder")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.safetensors")


@pytest.fixture(scope="module")
def tensors(checkpoint):
    return load_file(checkpoint)


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_base(checkpoint)


@pytest.fixture
def tokenizers(checkpoint):
    return [checkpoint.with_name("tiny_tokenizer")]


def assert_same_model(model, other):
    for part in PARTS:
        state, again = getattr(model, part).state_dict(), getattr(other, part).state_dict()
        assert state.keys() == again.keys()
        assert all(torch.equal(state[name], again[name]) for name in state)


def save(model, path, **changes):
    parts = {part: getattr(model, part) for part in PARTS} | {"dtype": "fp16", "metadata": {}}
    save_single_file(path, **parts | changes)
    return path


def write_folder(model, folder):
    for part in PARTS:
        getattr(model, part).save_pretrained(folder / part)
    DDPMScheduler(prediction_type="v_prediction").save_pretrained(folder / "scheduler")
    model.tokenizer.save_pretrained(folder / "tokenizer")
    write_small_tokenizer(folder / "tokenizer")
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    return folder


def test_it_draws(model):
    with torch.no_grad():
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        ids = torch.full((1, 77), 5)
        context = model.text_encoder(ids).last_hidden_state
        predicted = model.unet(noise, torch.tensor(500), context).sample
        pixels = model.vae.decode(predicted / model.vae.config.scaling_factor).sample
    assert pixels.shape == (1, 3, 64, 64)
    assert pixels.isfinite().all()
    assert pixels.std() > 0.01


def test_the_random_model_is_the_same_for_the_same_seed(checkpoint, tensors, tmp_path):
    again = write_random_model(tmp_path / "again.safetensors")
    assert again.read_bytes() == checkpoint.read_bytes()
    other = load_file(write_random_model(tmp_path / "other.safetensors", seed=1))
    assert not torch.equal(
        other["model.diffusion_model.out.2.weight"], tensors["model.diffusion_model.out.2.weight"]
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_all_parts_have_the_dtype_and_can_learn(checkpoint, dtype):
    model = load_base(checkpoint, dtype=dtype)
    for part in PARTS:
        for parameter in getattr(model, part).parameters():
            assert parameter.dtype == (torch.float32 if part == "vae" else dtype)
            assert parameter.requires_grad
            assert parameter.device.type == "cpu"
        assert not getattr(model, part).training
        assert not any(b.is_meta for b in getattr(model, part).buffers())


def test_everything_is_put_on_the_device(checkpoint):
    """Also what no file has: on a GPU a text encoder whose positions stay behind fails at once."""
    model = load_base(checkpoint, device="meta")
    for part in PARTS:
        module = getattr(model, part)
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            assert tensor.device.type == "meta", f"{part}.{name}"


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_a_saved_file_has_every_tensor_and_loads_back_equal(model, tensors, tmp_path, dtype):
    saved = load_file(save(model, tmp_path / "a.safetensors", dtype=dtype, metadata={"a": "b"}))
    assert saved.keys() == tensors.keys()
    wanted = {"fp16": torch.float16, "fp32": torch.float32}[dtype]
    for name, tensor in tensors.items():
        assert saved[name].dtype == wanted
        assert torch.equal(saved[name], tensor.to(wanted))  # VAE attention: (o, i, 1, 1) too
    write_small_tokenizer(tmp_path / "a_tokenizer")
    assert_same_model(model, load_base(tmp_path / "a.safetensors"))


def test_velocity_is_written_and_read(model, tmp_path, tokenizers):
    path = save(model, tmp_path / "a.safetensors", prediction="v_prediction")
    assert identify(path).prediction == "v_prediction"
    assert load_base(path, tokenizers).prediction == "v_prediction"
    assert load_base(path, tokenizers, prediction="epsilon").prediction == "epsilon"


def test_loading_leaves_the_file_free(checkpoint, tensors, tmp_path, tokenizers):
    path = tmp_path / "a.safetensors"
    path.write_bytes(checkpoint.read_bytes())
    model = load_base(path, tokenizers, dtype=torch.float16)
    with path.open("rb+") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(model.unet.conv_out.weight, tensors["model.diffusion_model.out.2.weight"])


def test_other_tensors_in_a_file_are_passed_over(model, tensors, tmp_path, tokenizers):
    others = {
        "model_ema.diffusion_modelout2weight": torch.zeros(3),
        "alphas_cumprod": torch.zeros(1000),
        "betas": torch.zeros(1000),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "cond_stage_model.logit_scale": torch.tensor(1.0),
        "first_stage_model.loss.logvar": torch.zeros(()),
        "model_ema.num_updates": torch.tensor(3),
    }
    save_file(tensors | others, tmp_path / "a.safetensors")
    assert_same_model(model, load_base(tmp_path / "a.safetensors", tokenizers))


def test_a_text_encoder_without_text_model_in_its_names(model, tensors, tmp_path, tokenizers):
    short = {
        name.replace("transformer.text_model.", "transformer."): t for name, t in tensors.items()
    }
    save_file(short, tmp_path / "a.safetensors")
    assert_same_model(model, load_base(tmp_path / "a.safetensors", tokenizers))


def test_a_ckpt_loads(model, tensors, tmp_path, tokenizers):
    torch.save({"state_dict": tensors, "global_step": 3}, tmp_path / "a.ckpt")
    assert_same_model(model, load_base(tmp_path / "a.ckpt", tokenizers))


def test_a_ckpt_of_another_family_is_refused(tmp_path, tokenizers):
    torch.save({"conditioner.embedders.0.x": torch.zeros(1)}, tmp_path / "a.ckpt")
    with pytest.raises(BaseModelError, match="not recognised"):
        load_base(tmp_path / "a.ckpt", tokenizers)


def test_a_diffusers_folder_loads(model, tmp_path):
    folder = write_folder(model, tmp_path / "model")
    found = load_base(folder)
    assert_same_model(model, found)
    assert found.prediction == "v_prediction"
    assert found.vae.config.scaling_factor == 0.18215


def test_a_diffusers_folder_of_half_precision_variants_loads(model, tmp_path):
    folder = write_folder(model, tmp_path / "model")
    for file in list(folder.rglob("*.safetensors")):
        save_file(
            {name: tensor.half() for name, tensor in load_file(file).items()},
            file.with_suffix(".fp16.safetensors"),
            metadata={"format": "pt"},
        )
        file.unlink()
    assert_same_model(model, load_base(folder))


def test_a_folder_written_by_transformers_4_loads(model, tmp_path):
    folder = write_folder(model, tmp_path / "model")
    path = folder / "text_encoder" / "model.safetensors"
    bare = {name.removeprefix("text_model."): t for name, t in load_file(path).items()}
    save_file({f"text_model.{name}": t for name, t in bare.items()}, path)
    assert_same_model(model, load_base(folder))


def test_a_folder_written_by_early_diffusers_loads(model, tmp_path):
    folder = write_folder(model, tmp_path / "model")
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    early = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(path)
    for new, old in early.items():
        state = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in state.items()}
    save_file(state, path, metadata={"format": "pt"})
    assert any("proj_attn" in name for name in state)
    assert_same_model(model, load_base(folder))


@pytest.mark.parametrize("scale", [0.0, float("nan")])
def test_a_tiny_vae_without_a_scale_is_refused(tensors, tmp_path, tokenizers, scale):
    tiny = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    names = ldm_names.tiny_vae_names(tiny.config)
    rest = {name: t for name, t in tensors.items() if not name.startswith(ldm_names.VAE)}
    vae = ldm_names.to_ldm(tiny.state_dict(), names, ldm_names.VAE)
    vae[f"{ldm_names.VAE}vae_scale"] = torch.tensor(scale)
    save_file(rest | vae, tmp_path / "a.safetensors")
    with pytest.raises(BaseModelError, match="VAE"):
        load_base(tmp_path / "a.safetensors", tokenizers)


@pytest.mark.parametrize("part", PARTS)
def test_an_incomplete_folder_names_what_it_lacks(model, tmp_path, part):
    folder = write_folder(model, tmp_path / "model")
    path = next((folder / part).glob("*.safetensors"))
    state = load_file(path)
    state.pop(max(state))
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match="incomplete: it lacks"):
        load_base(folder)


@pytest.mark.parametrize(
    "lacking",
    [
        "model.diffusion_model.middle_block.1.proj_in.weight",
        "model.diffusion_model.output_blocks.0.0.in_layers.2.bias",
        "first_stage_model.quant_conv.weight",
        "first_stage_model.encoder.conv_in.weight",
        "cond_stage_model.transformer.text_model.final_layer_norm.bias",
    ],
)
def test_an_incomplete_file_names_what_it_lacks(tensors, tmp_path, tokenizers, lacking):
    rest = {name: tensor for name, tensor in tensors.items() if name != lacking}
    save_file(rest, tmp_path / "a.safetensors")
    with pytest.raises(BaseModelError, match="is incomplete: it lacks"):
        load_base(tmp_path / "a.safetensors", tokenizers)


def test_a_layer_of_another_architecture_is_refused(tensors, tmp_path, tokenizers):
    more = tensors | {"model.diffusion_model.middle_block.3.weight": torch.zeros(1)}
    save_file(more, tmp_path / "a.safetensors")
    with pytest.raises(BaseModelError, match=r"middle_block\.3\.weight"):
        load_base(tmp_path / "a.safetensors", tokenizers)


def test_a_tensor_of_another_shape_is_refused(tensors, tmp_path, tokenizers):
    wrong = tensors | {"model.diffusion_model.out.2.bias": torch.zeros(5)}
    save_file(wrong, tmp_path / "a.safetensors")
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_base(tmp_path / "a.safetensors", tokenizers)


def test_a_tokenizer_of_another_model_is_refused(checkpoint, tmp_path):
    size = write_small_tokenizer(tmp_path / "large")
    vocabulary = json.loads((tmp_path / "large" / "vocab.json").read_text(encoding="utf-8"))
    vocabulary["more"] = size
    (tmp_path / "large" / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    path = tmp_path / "a.safetensors"
    path.write_bytes(checkpoint.read_bytes())
    with pytest.raises(BaseModelError, match="belong to another model"):
        load_base(path, [tmp_path / "large"])


def test_a_tokenizer_that_is_too_large_makes_way_for_one_that_fits(checkpoint, tmp_path):
    write_tokenizer(tmp_path / "miniature")  # twice the size
    size = write_small_tokenizer(tmp_path / "own")
    path = tmp_path / "a.safetensors"
    path.write_bytes(checkpoint.read_bytes())
    model = load_base(path, [tmp_path / "miniature", tmp_path / "own"])
    assert len(model.tokenizer) == size


def test_a_tiny_vae_is_written_and_read(model, tmp_path, tokenizers):
    torch.manual_seed(0)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4
    ).half()
    path = save(model, tmp_path / "a.safetensors", vae=vae)
    saved = load_file(path)
    # ComfyUI: latents = 0.18215 * (encoder / vae_scale + vae_shift)
    assert saved["first_stage_model.vae_scale"] == torch.tensor(0.18215)
    assert saved["first_stage_model.vae_shift"] == 0
    found = load_base(path, tokenizers, dtype=torch.float16).vae
    assert found.config.scaling_factor == 1
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), found.parameters(), strict=True))
    save_file(saved | {"first_stage_model.vae_shift": torch.tensor(0.5)}, path)
    with pytest.raises(BaseModelError, match="vae_shift"):
        load_base(path, tokenizers)
