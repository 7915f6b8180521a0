"""What a run leaves, and when it leaves nothing."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from likeness.demo.random_model import write_random_model
from likeness.trainers import evaluation, result
from likeness.trainers.adapter import read_metadata, trained_prediction
from likeness.trainers.base_file import identify
from likeness.trainers.base_model import load_base
from likeness.trainers.errors import NothingLearned
from likeness.trainers.recipe import Recipe
from likeness.trainers.result import save_adapter_file


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = write_random_model(tmp_path_factory.mktemp("base") / "tiny.safetensors")
    return load_base(path, prediction="v_prediction")


def run_of(recipe, folder):
    """A run that has done its 800 steps, and saves into `folder`."""
    return SimpleNamespace(
        recipe=recipe, losses=[0.5] * 800, precision="fp32", photos=2,
        places=SimpleNamespace(loras=folder, checkpoints=folder),
        folder=SimpleNamespace(path=Path("anna-1")),
        accelerator=SimpleNamespace(is_main_process=True),
    )  # fmt: skip


def test_a_checkpoint_says_what_its_base_predicts_and_replaces_no_other(base, tmp_path):
    run = run_of(Recipe(method={"kind": "dreambooth"}), tmp_path)
    (tmp_path / "anna-1.safetensors").write_bytes(b"another's")
    file = save_adapter_file(run, base, 800)
    assert file.name == "anna-1-2.safetensors"
    assert (tmp_path / "anna-1.safetensors").read_bytes() == b"another's"
    assert identify(file).prediction == trained_prediction(file) == "v_prediction"
    assert save_adapter_file(run, base, 400).name == "anna-1-step000400.safetensors"


def test_a1111_and_forge_took_all_results_for_one_and_showed_no_words(base, tmp_path, monkeypatch):
    monkeypatch.setattr(result.lora, "export", lambda *_: lora(1.0))
    run = run_of(Recipe(subject={"class_word": "dog"}), tmp_path)
    (tmp_path / "anna-1.safetensors").write_bytes(b"another's")
    found = read_metadata(save_adapter_file(run, base, 800)).metadata
    assert found["ss_output_name"] == "anna-1-2"
    assert json.loads(found["ss_tag_frequency"]) == {"2_dog": {"sks dog": 2}}
    assert found["ss_base_model_version"] == "sd_v1_v"


def lora(value, **more):
    ups = {f"lora_unet_{n}.lora_up.weight": torch.zeros(2, 1) for n in range(3)}
    ups["lora_unet_2.lora_up.weight"][1] = value
    return ups | {"lora_unet_2.lora_down.weight": torch.ones(1, 2)} | more


def test_a_lora_that_had_learned_nothing_was_saved_like_any_other(base, tmp_path, monkeypatch):
    recipe = Recipe().changed(optimizer={"learning_rate": 1e-9})

    def save(tensors, recipe=recipe):
        monkeypatch.setattr(result.lora, "export", lambda *_: tensors)
        return save_adapter_file(run_of(recipe, tmp_path), base, 800)

    for value in (0.0, 1e-8):  # fp16 begins at 6e-8
        with pytest.raises(NothingLearned, match=r"learning_rate, which is 1e-09"):
            save(lora(value))
    assert not list(tmp_path.iterdir())
    dora = lora(0.0, **{"lora_unet_2.dora_scale": torch.ones(2, 1)})
    fp32 = recipe.changed(saving={"dtype": "fp32"})
    saved = {save(lora(1e-7)), save(lora(1e-8), fp32), save(dora)}
    assert len(saved) == 3 and set(tmp_path.iterdir()) == saved


def test_an_adapter_on_the_way_that_has_learned_nothing_as_yet_ends_no_run(monkeypatch):
    def nothing(run, base, done):
        raise NothingLearned("Nothing is learned.")

    notes, events = [], []
    run = SimpleNamespace(
        recipe=Recipe(), note=notes.append, emit=lambda kind, **data: events.append(kind)
    )
    state = SimpleNamespace(parameters={"a": torch.ones(1)}, ema=None)
    monkeypatch.setattr(evaluation, "save_adapter_file", nothing)
    evaluation.save_intermediate_adapter(run, SimpleNamespace(state=state, base=None), 1)
    assert notes == ["After step 1: Nothing is learned."] and events == []
