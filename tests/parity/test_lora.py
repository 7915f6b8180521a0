"""What peft trained is what a file's reader gets, and so it is with diffusers' own files."""

import inspect
import runpy
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from likeness.trainers import lora, lora_merge
from likeness.trainers.adapter import load_adapter, save_adapter
from likeness.trainers.recipe import LoRA
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

MODELS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "models.py"))
tiny = MODELS["tiny"]

METHODS = {
    "plain": LoRA(rank=3),
    "alpha": LoRA(rank=3, alpha=1.5),
    "rank stabilised": LoRA(rank=3, alpha=2, rslora=True),
    "DoRA": LoRA(rank=3, dora=True),
    "both": LoRA(rank=3, alpha=2, dora=True, rslora=True),
}


def move(*models: nn.Module) -> None:
    """As if trained: moves everything that learns."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in (p for model in models for p in model.parameters() if p.requires_grad):
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def peft_merged(model: nn.Module) -> dict[str, Tensor]:
    """The weights as peft itself merges them, by module."""
    merged = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            module.merge()
            merged[name] = module.get_base_layer().weight.detach()
    return merged


def assert_merged(model: nn.Module, expected: dict[str, Tensor], base: nn.Module) -> None:
    assert expected
    for name, weight in expected.items():
        found = model.get_submodule(name).weight
        torch.testing.assert_close(found, weight, rtol=2e-6, atol=2e-7)
        assert not torch.allclose(found, base.get_submodule(name).weight, atol=1e-3)


@pytest.mark.parametrize("targets", ["attention", "linear", "all"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_files_reader_gets_the_weights_that_peft_trained(
    method: LoRA, targets: str, tmp_path: Path
) -> None:
    method = method.model_copy(update={"targets": targets})
    trained, plain, base = tiny(), tiny(), tiny()
    lora.attach(*trained, method, seed=1)
    move(*trained)
    save_adapter(tmp_path / "a.safetensors", lora.export(*trained, method), {})
    lora_merge.merge(*plain, load_adapter(tmp_path / "a.safetensors"))
    for model, of_peft, untouched in zip(plain, trained, base, strict=True):
        assert_merged(model, peft_merged(of_peft), untouched)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_images_agree_with_unmerged_training(method: LoRA) -> None:
    method = method.model_copy(update={"targets": "all"})
    trained, plain = tiny(), tiny()
    lora.attach(*trained, method, seed=1)
    move(*trained)
    lora_merge.merge(*plain, lora.export(*trained, method))
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(2, 4, 8, 8, generator=generator)
    ids = torch.randint(2, 20, (2, 7), generator=generator)
    drawn = []
    for unet, text in (trained, plain):
        with torch.no_grad():
            embedding = text.eval()(ids).last_hidden_state
            drawn.append(unet.eval()(noise, 500, embedding).sample)
    torch.testing.assert_close(drawn[0], drawn[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_file_of_diffusers_own_script_is_read(method: LoRA, tmp_path: Path) -> None:
    """Named as diffusers names them, with alpha in its metadata and DoRA as peft keeps it."""
    trained, plain, base = tiny(), tiny(), tiny()
    states, metadata = [], []
    targets = (["to_q", "to_k", "to_v", "to_out.0"], ["q_proj", "k_proj", "v_proj", "out_proj"])
    for model, modules in zip(trained, targets, strict=True):
        model.requires_grad_(False)
        config = LoraConfig(
            r=method.rank,
            lora_alpha=method.alpha or method.rank,
            init_lora_weights="gaussian",
            target_modules=modules,
            use_dora=method.dora,
            use_rslora=method.rslora,
        )
        inject_adapter_in_model(config, model)
    move(*trained)
    for model in trained:
        states.append(convert_state_dict_to_diffusers(get_peft_model_state_dict(model)))
        metadata.append(model.peft_config["default"].to_dict())
    save = StableDiffusionPipeline.save_lora_weights
    if "unet_lora_adapter_metadata" not in inspect.signature(save).parameters:
        pytest.skip("this release of diffusers writes no alpha")
    save(
        tmp_path,
        unet_lora_layers=states[0],
        text_encoder_lora_layers=states[1],
        unet_lora_adapter_metadata=metadata[0],
        text_encoder_lora_adapter_metadata=metadata[1],
    )
    lora_merge.merge(*plain, load_adapter(tmp_path / "pytorch_lora_weights.safetensors"))
    for model, of_peft, untouched in zip(plain, trained, base, strict=True):
        assert_merged(model, peft_merged(of_peft), untouched)
