"""What a run leaves, and when it leaves nothing."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from likeness.demo.random_model import write_random_model
from likeness.trainers import looks, result
from likeness.trainers.adapter import trained_prediction
from likeness.trainers.base_file import identify
from likeness.trainers.base_model import load_base
from likeness.trainers.errors import NothingLearned
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


def lora(value, **more):
    ups = {f"lora_unet_{n}.lora_up.weight": torch.zeros(2, 1) for n in range(3)}
    ups["lora_unet_2.lora_up.weight"][1] = value
    return ups | {"lora_unet_2.lora_down.weight": torch.ones(1, 2)} | more


def test_a_lora_that_had_learned_nothing_was_saved_like_any_other():
    recipe = Recipe().changed(optimizer={"learning_rate": 1e-9})
    for value in (0.0, 1e-8):  # fp16 begins at 6e-8
        with pytest.raises(NothingLearned, match=r"learning_rate, which is 1e-09"):
            result._check_learned(lora(value), recipe)
    result._check_learned(lora(1e-7), recipe)
    result._check_learned(lora(1e-8), recipe.changed(saving={"dtype": "fp32"}))
    result._check_learned(lora(0.0, **{"lora_unet_2.dora_scale": torch.ones(2, 1)}), recipe)


def test_an_adapter_on_the_way_that_has_learned_nothing_as_yet_ends_no_run(monkeypatch):
    def nothing(run, base, done):
        raise NothingLearned("Nothing is learned.")

    notes, events = [], []
    run = SimpleNamespace(
        recipe=Recipe(), note=notes.append, emit=lambda kind, **data: events.append(kind)
    )
    state = SimpleNamespace(parameters={"a": torch.ones(1)}, average=None)
    monkeypatch.setattr(looks, "save_adapter_file", nothing)
    looks.save_on_the_way(run, SimpleNamespace(state=state, base=None), 1)
    assert notes == ["After step 1: Nothing is learned."] and events == []
