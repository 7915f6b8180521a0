"""A ControlNet in a diffusers folder, in each of the forms that such folders have."""

from types import SimpleNamespace

import pytest
import torch
from likeness.comparison.compare import ComparisonFiles, resolve_plan, train_missing
from likeness.comparison.controlnet import load_controlnet
from likeness.comparison.errors import ComparisonError
from likeness.comparison.plan_file import plan_file_from_data
from likeness.trainers.digests import content_digest
from likeness.trainers.errors import LikenessError
from safetensors.torch import load_file, save_file

POSED = {"rows": [{"name": "base"}], "with_pose": "with", "prompts": {"prompts": [
    {"key": "a", "text": "a dog"}]}}  # fmt: skip
FORMS = {
    "diffusion_pytorch_model.safetensors": {},
    "diffusion_pytorch_model.fp16.safetensors": {"variant": "fp16"},
    "diffusion_pytorch_model.bin": {"safe_serialization": False},
}


def never(recipes, places):
    yield from ()


@pytest.mark.parametrize("name", FORMS)
def test_a_folder_of_each_form_is_taken_and_loaded(unet, net, tmp_path, monkeypatch, name):
    net.save_pretrained(tmp_path / "net", **FORMS[name])
    assert {path.name for path in (tmp_path / "net").iterdir()} == {"config.json", name}
    loaded = load_controlnet(tmp_path / "net", unet)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value)
    base = SimpleNamespace(prediction="epsilon")
    monkeypatch.setattr("likeness.comparison.compare.identify", lambda path: base)
    files = ComparisonFiles(
        base=tmp_path / "net" / name, output=tmp_path, controlnet=tmp_path / "net"
    )
    plan = plan_file_from_data(POSED)
    bound = resolve_plan(plan, train_missing(plan, files, never), files)
    assert bound.control.model == content_digest(tmp_path / "net" / name)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no weights in"),
        (
            {
                "diffusion_pytorch_model.safetensors.index.json": '{"weight_map": {"a": "1.st", '
                '"b": "2.st"}}'
            },
            "is split into 2 files: save it as one file",
        ),
    ],
)
def test_a_folder_that_cannot_be_taken_is_told_before_anything_is_trained(tmp_path, files, message):
    (tmp_path / "net").mkdir()
    for name, text in files.items():
        (tmp_path / "net" / name).write_text(text)
    given = ComparisonFiles(base=tmp_path / "b", output=tmp_path, controlnet=tmp_path / "net")
    with pytest.raises(LikenessError, match=message):
        train_missing(plan_file_from_data(POSED), given, never)


def test_tensors_that_are_missing_are_not_made_up(unet, net, tmp_path):
    net.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["controlnet_mid_block.weight"]
    save_file(state, path, {"format": "pt"})
    with pytest.raises(ComparisonError, match=r"it lacks tensors.*controlnet_mid_block\.weight"):
        load_controlnet(tmp_path, unet)


def test_a_pickle_is_refused_where_it_could_run_code(unet, net, tmp_path, monkeypatch):
    net.save_pretrained(tmp_path, safe_serialization=False)
    monkeypatch.setattr("torch.__version__", "2.5.1")
    with pytest.raises(ComparisonError, match=r"2\.6 or newer"):
        load_controlnet(tmp_path, unet)
