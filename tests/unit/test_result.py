"""What a run leaves."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from likeness.demo.random_model import write_random_model
from likeness.trainers.adapter import trained_prediction
from likeness.trainers.base_file import identify
from likeness.trainers.base_model import load_base
from likeness.trainers.recipe import Recipe
from likeness.trainers.result import save_adapter_file


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = write_random_model(tmp_path_factory.mktemp("base") / "tiny.safetensors")
    return load_base(path, prediction="v_prediction")


def test_a_checkpoint_says_what_its_base_predicts_and_replaces_no_other(base, tmp_path):
    run = SimpleNamespace(
        recipe=Recipe(method={"kind": "dreambooth"}), losses=[0.5] * 800, precision="fp32",
        places=SimpleNamespace(checkpoints=tmp_path), folder=SimpleNamespace(path=Path("anna-1")),
        accelerator=SimpleNamespace(is_main_process=True),
    )  # fmt: skip
    (tmp_path / "anna-1.safetensors").write_bytes(b"another's")
    file = save_adapter_file(run, base, 800)
    assert file.name == "anna-1-2.safetensors"
    assert (tmp_path / "anna-1.safetensors").read_bytes() == b"another's"
    assert identify(file).prediction == trained_prediction(file) == "v_prediction"
    assert save_adapter_file(run, base, 400).name == "anna-1-step000400.safetensors"
