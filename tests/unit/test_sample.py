"""Models that draw from the terminal."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from likeness.comparison import cli, sample
from likeness.comparison.compare import ComparisonFiles, resolve_plan
from likeness.comparison.controlnet import load_controlnet
from likeness.comparison.plan_file import plan_file_from_data
from likeness.comparison.row_adapters import RowAdapter
from likeness.demo.random_model import write_random_model
from likeness.trainers import cpu, lora
from likeness.trainers.adapter import trained_prediction
from likeness.trainers.adapter_metadata import build_metadata
from likeness.trainers.cpu import Im2colConv2d
from likeness.trainers.metadata_filter import strip_prompts
from likeness.trainers.recipe import LoRA, Recipe
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [write_random_model(folder / f"{n}.safetensors", seed=n, dtype="fp32") for n in (0, 1)]


def products(model):
    return sum(isinstance(module, Im2colConv2d) for module in model.modules())


def test_images_on_a_cpu_took_longer_than_with_a_pipeline(base, monkeypatch):
    """Trainings had matrix products in place of small convolutions, and drawings had not."""
    fast = sample.load_with_adapter(*base)
    assert products(fast.unet) > 0
    monkeypatch.setattr(cpu, "use_im2col_convs", lambda model: None)
    plain = sample.load_with_adapter(*base)
    assert products(plain.unet) == 0
    asked = {"width": 64, "height": 64, "steps": 2}
    one, other = (sample.draw(model, ["a man"], **asked)[0] for model in (fast, plain))
    assert np.abs(one.astype(int) - other).max() <= 1


@pytest.fixture
def learned(base, tmp_path):
    """Writes a LoRA whose training took the base to predict `prediction`."""

    def write(prediction, share=lambda metadata: metadata):
        model = sample.load_with_adapter(base[0], None)
        lora.attach(model.unet, model.text_encoder, LoRA(rank=2), 0)
        tensors = lora.export(model.unet, model.text_encoder, LoRA(rank=2))
        recipe = Recipe(base={"prediction": prediction})
        metadata = build_metadata(recipe, steps=1, losses=[], prediction=prediction)
        save_file(tensors, tmp_path / "lora.safetensors", share(metadata))
        return tmp_path / "lora.safetensors"

    return write


@pytest.mark.parametrize("share", [dict, strip_prompts], ids=["whole", "without prompts"])
def test_what_learned_v_on_a_base_without_the_mark_was_drawn_as_epsilon(base, learned, share):
    path = learned("v_prediction", share)
    assert sample.load_with_adapter(base[0], path).prediction == "v_prediction"
    assert sample.load_with_adapter(base[0], path, strength=0.0).prediction == "epsilon"


def test_what_learned_epsilon_on_a_base_with_the_mark_of_v_is_drawn_so(base, learned, tmp_path):
    marked = load_file(base[0]) | {"v_pred": torch.zeros(0)}
    save_file(marked, tmp_path / "marked.safetensors")
    shutil.copytree(base[0].with_name("0_tokenizer"), tmp_path / "marked_tokenizer")
    assert sample.load_with_adapter(tmp_path / "marked.safetensors", None).prediction != "epsilon"
    drawn = sample.load_with_adapter(tmp_path / "marked.safetensors", learned("epsilon"))
    assert drawn.prediction == "epsilon"


@pytest.mark.parametrize(
    ("prediction", "part"), [("v_prediction", "v_prediction"), ("epsilon", None)]
)
def test_a_plan_says_what_was_learned_where_the_base_says_otherwise(
    base, learned, tmp_path, prediction, part
):
    """Else an image that was once drawn as epsilon would be taken for that of v."""
    prompts = {"prompts": [{"key": "dog", "text": "a dog"}]}
    plan = plan_file_from_data({"rows": [{"name": "r"}], "prompts": prompts})
    row_adapters = [RowAdapter("r", learned(prediction))]
    (variant,) = resolve_plan(
        plan, row_adapters, ComparisonFiles(base=base[0], output=tmp_path)
    ).variants
    assert variant.prediction == part


def test_of_another_programs_file_only_the_mark_of_v_counts(tmp_path):
    tensors = {"lora_unet_x.lora_down.weight": torch.zeros(4, 8)}
    for said, prediction in (("v", "v_prediction"), ("epsilon", None), ("", None)):
        path = tmp_path / f"{said}.safetensors"
        save_file(tensors, path, {"modelspec.prediction_type": said})
        assert trained_prediction(path) == prediction


def test_a_controlnet_on_a_cpu_has_matrix_products_too(base, tmp_path):
    unet = sample.load_with_adapter(base[0], None).unet
    ControlNetModel.from_unet(unet).save_pretrained(tmp_path)
    assert products(load_controlnet(tmp_path, unet)) > 0


@pytest.mark.parametrize(("text", "given"), [(0.25, (0.5, 0.25)), (None, (0.5, 0.5))])
def test_a_lora_has_its_own_strength_on_unet_and_text_encoder(
    base, learned, monkeypatch, text, given
):
    strengths = []
    monkeypatch.setattr(sample, "merge", lambda *what: strengths.append(what[3:]))
    path = learned("epsilon")
    sample.load_with_adapter(base[0], path, strength=0.5, strength_text=text)
    assert strengths == [given]


def test_strength_0_of_a_training_with_clip_skip_was_not_the_base(base, tmp_path):
    path = tmp_path / "lora.safetensors"
    recipe = Recipe().changed(text_encoder={"clip_skip": 2})
    save_file({"x": torch.zeros(1)}, path, build_metadata(recipe, steps=1, losses=[]))
    for strength, skip in ((1.0, 2), (0.0, 1)):
        given = SimpleNamespace(clip_skip=None, adapter=path, strength=strength)
        assert cli._clip_skip(given) == skip
    rows = [
        {"name": name, "strength_unet": unet, "strength_text": text}
        for name, unet, text in (("base", 0, 0), ("unet", 1, 0), ("text", 0, 1))
    ]
    made = plan_file_from_data({"rows": rows, "prompts": {"prompts": [{"key": "a", "text": "b"}]}})
    skips = dict.fromkeys(("base", "unet", "text"), 2)
    assert [one.clip_skip for one in made.matrix({}, clip_skips=skips).variants] == [1, 2, 2]


def test_a_full_fine_tune_without_a_vae_was_read_as_a_lora(base, tmp_path):
    path = tmp_path / "no_vae.safetensors"
    whole = load_file(base[0])
    save_file({k: v for k, v in whole.items() if not k.startswith("first_stage_model.")}, path)
    loaded, plain = (sample.load_with_adapter(base[0], one) for one in (path, None))
    for name, weight in plain.unet.state_dict().items():
        assert torch.equal(weight, loaded.unet.state_dict()[name])
