"""What is not an SD 1.x checkpoint is named for what it is, from its header."""

import json
import runpy
from pathlib import Path

import pytest
from likeness.trainers.base_file import check_noise_schedule, identify
from likeness.trainers.errors import BaseModelError

FOLDERS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "folders.py"))
UNET = "model.diffusion_model."
CONTEXT = f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"
SD1 = {
    f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3),
    CONTEXT: (1280, 768),
    "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3),
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
    "model_ema.decay": (),
}


def write(path: Path, shapes: dict, size: int = 0) -> Path:
    """A safetensors file whose tensors are empty where `size` is 0: only the header is read."""
    entry = {"dtype": "F16", "data_offsets": [0, size]}
    header = json.dumps({name: {**entry, "shape": shape} for name, shape in shapes.items()})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(size))
    return path


def write_folder(folder: Path, pipeline: str = "StableDiffusionPipeline", **unet) -> Path:
    config = {"in_channels": 4, "cross_attention_dim": 768} | unet
    FOLDERS["write_folder"](folder, json.dumps(config))
    (folder / "scheduler").mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    return folder


def test_a_checkpoint_is_recognised(tmp_path):
    found = identify(write(tmp_path / "a.safetensors", SD1))
    assert (found.kind, found.prediction) == ("single_file", "epsilon")


def test_v_pred_marks_velocity(tmp_path):
    shapes = SD1 | {"v_pred": (0,)}
    assert identify(write(tmp_path / "a.safetensors", shapes)).prediction == "v_prediction"


def without(*prefixes):
    return {name: shape for name, shape in SD1.items() if not name.startswith(prefixes)}


OTHERS = {
    "inpainting": SD1 | {f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)},
    "instruct-pix2pix": SD1 | {f"{UNET}input_blocks.0.0.weight": (320, 8, 3, 3)},
    "Stable Diffusion 2": SD1 | {CONTEXT: (1280, 1024)},
    "SDXL": SD1 | {CONTEXT: (1280, 2048)},
    "an SDXL": SD1 | {"conditioner.embedders.0.x": (1,)},
    "Stable Diffusion 3": {f"{UNET}joint_blocks.0.x_block.attn.qkv.weight": (1, 1)},
    "FLUX": {"double_blocks.0.img_attn.qkv.weight": (1, 1)},
    "LoRA": {"lora_unet_down_blocks_0.lora_up.weight": (1, 1)},
    "ControlNet": {"control_model.input_hint_block.0.weight": (1, 1)},
    "VAE without": {"decoder.conv_in.weight": (1, 1)},
    "text encoder without": {"text_model.embeddings.token_embedding.weight": (1, 1)},
    "without a text encoder or a VAE": without("cond_stage", "first_stage"),
    r"without a VAE\. Add one.*Save Checkpoint": without("first_stage"),
    "another family": SD1 | {f"{UNET}input_blocks.0.0.weight": (320,)},
    "not recognised.*strange": {"strange.weight": (1, 1)},
    "another family.": {f"{UNET}a.attn2.to_k.weight": ()},  # a scalar had no width
}


@pytest.mark.parametrize("says", OTHERS)
def test_other_models_are_refused_by_name(tmp_path, says):
    with pytest.raises(BaseModelError, match=says):
        identify(write(tmp_path / "a.safetensors", OTHERS[says]))


def test_names_in_a_file_gave_orders_to_the_terminal(tmp_path):
    path = write(tmp_path / "a.safetensors", {"\x1b[2Jgone\x07": (1,)})
    with pytest.raises(BaseModelError) as told:
        identify(path)
    assert "[2Jgone" in str(told.value) and str(told.value).isprintable()


def test_a_truncated_file_is_refused(tmp_path):
    path = write(tmp_path / "a.safetensors", SD1, size=10)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BaseModelError, match="truncated"):
        identify(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 8,
        b"\xff" * 64,  # a header of 2**64 - 1 bytes
        b"<!DOCTYPE html><html>not the file</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2132625182\n",
        (9).to_bytes(8, "little") + b"[[[[[[[[[",
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a":"b"}',
    ],
)
def test_what_is_no_safetensors_is_refused(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(BaseModelError, match=r"a\.safetensors"):
        identify(path)


def test_missing_and_strange_files_are_refused(tmp_path):
    with pytest.raises(BaseModelError, match="no base model"):
        identify(tmp_path / "none.safetensors")
    (tmp_path / "photo.png").write_bytes(b"x")
    with pytest.raises(BaseModelError, match="not a model file"):
        identify(tmp_path / "photo.png")
    with pytest.raises(BaseModelError, match="not a diffusers model"):
        identify(tmp_path)


def test_a_ckpt_is_taken_by_its_name(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"x")
    assert identify(tmp_path / "a.ckpt").kind == "single_file"


def test_a_folder_says_what_it_predicts(tmp_path):
    folder = write_folder(tmp_path / "model")
    assert identify(folder).kind == "diffusers"
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.write_text('{"prediction_type": "v_prediction"}')
    assert identify(folder).prediction == "v_prediction"
    scheduler.write_text('{"prediction_type": "sample"}')
    with pytest.raises(BaseModelError, match="predicts 'sample'"):
        identify(folder)


STABLE = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "prediction_type": "epsilon",
    "steps_offset": 1,
}


@pytest.mark.parametrize(
    "other",
    [
        {"rescale_betas_zero_snr": True},
        {"beta_start": 0.0001},
        {"beta_end": 0.02},
        {"beta_schedule": "linear"},
        {"num_train_timesteps": 4000},
        {"trained_betas": [0.1, 0.2]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_folder_of_other_noise_was_trained_with_that_of_sd1(tmp_path, other):
    folder = write_folder(tmp_path / "model")
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(STABLE | {"rescale_betas_zero_snr": False}))
    check_noise_schedule(identify(folder))
    scheduler.write_text(json.dumps(STABLE | other))
    with pytest.raises(BaseModelError, match=f"noise schedule other than.*{next(iter(other))} "):
        check_noise_schedule(identify(folder))


def test_a_file_with_zero_terminal_snr_was_trained_with_the_noise_of_sd1(tmp_path):
    check_noise_schedule(identify(write(tmp_path / "b.safetensors", SD1 | {"v_pred": (0,)})))
    marked = write(tmp_path / "a.safetensors", SD1 | {"v_pred": (0,), "ztsnr": (0,)})
    with pytest.raises(BaseModelError, match="zero terminal SNR"):
        check_noise_schedule(identify(marked))


@pytest.mark.parametrize(
    ("pipeline", "unet", "says"),
    [
        ("StableDiffusionXLPipeline", {}, "SDXL"),
        ("StableDiffusion3Pipeline", {}, "Stable Diffusion 3"),
        ("FluxPipeline", {}, "FLUX"),
        ("StableDiffusionInpaintPipeline", {"in_channels": 9}, "inpainting"),
        ("StableDiffusionPipeline", {"cross_attention_dim": 1024}, "2.x"),
    ],
)
def test_other_folders_are_refused_by_name(tmp_path, pipeline, unet, says):
    with pytest.raises(BaseModelError, match=says):
        identify(write_folder(tmp_path / "model", pipeline, **unet))


def test_a_folder_without_weights_is_refused(tmp_path):
    folder = write_folder(tmp_path / "model")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(BaseModelError, match=r"no weights in .*vae"):
        identify(folder)
