"""A diffusers folder read without building the model."""

from __future__ import annotations

import json

import pytest
import torch
from likeness.demo.random_model import write_random_model
from likeness.trainers import ldm_names
from likeness.trainers.base_model import load_base
from likeness.trainers.diffusers_folder import read_folder
from likeness.trainers.errors import BaseModelError
from likeness.trainers.weights import read_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(single file, folder) of the same weights in fp32."""
    home = tmp_path_factory.mktemp("model")
    file, folder = write_random_model(home / "a.safetensors", dtype="fp32"), home / "folder"
    base = load_base(file)
    base.unet.save_pretrained(folder / "unet", max_shard_size="1MB")
    base.text_encoder.save_pretrained(folder / "text_encoder")
    base.vae.save_pretrained(folder / "vae")
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    return file, folder


def test_a_folder_has_the_single_files_tensors(model):
    file, folder = model
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    found, single = read_folder(folder), read_weights(file)
    parts = (ldm_names.UNET, ldm_names.TEXT)
    wanted = {key: value for key, value in single.items() if key.startswith(parts)}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_a_folder_of_another_family_or_without_weights_is_refused(model, tmp_path):
    _, folder = model
    other = tmp_path / "xl"
    (other / "unet").mkdir(parents=True)
    (other / "unet" / "config.json").write_text('{"cross_attention_dim": 2048}')
    with pytest.raises(BaseModelError, match="SDXL"):
        read_folder(other)
    config = json.loads((folder / "unet" / "config.json").read_text())
    (other / "unet" / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelError, match="no weights in"):
        read_folder(other)


def test_what_the_names_need_is_asked_of_the_configuration(model, tmp_path):
    import shutil

    copy = shutil.copytree(model[1], tmp_path / "copy")
    path = copy / "unet" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in config.items() if k != "layers_per_block"}))
    with pytest.raises(BaseModelError, match=r"lacks layers_per_block"):
        read_folder(copy)
    path.write_text(json.dumps(config | {"layers_per_block": 0}))
    with pytest.raises(BaseModelError, match=r"a tensor that Stable Diffusion 1\.x lacks"):
        read_folder(copy)
