import runpy
from pathlib import Path

import pytest
import torch
from likeness.trainers import ldm_names, lora, lora_merge
from likeness.trainers.adapter_names import group_by_module
from likeness.trainers.errors import AdapterError
from likeness.trainers.recipe import LoRA
from torch import Tensor, nn

MODELS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "models.py"))
attached, tiny = MODELS["attached"], MODELS["tiny"]

Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


def weights(*models: nn.Module) -> list[Tensor]:
    return [value.clone() for model in models for value in model.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_strength_zero_is_the_base_and_a_half_is_halfway() -> None:
    method = LoRA(targets="all", dora=True)
    tensors = lora.export(*attached(method, noise=0.1), method)
    base, zero, half, whole = tiny(), tiny(), tiny(), tiny()
    lora_merge.merge(*zero, tensors, 0.0, 0.0)
    lora_merge.merge(*half, tensors, 0.5, 0.5)
    lora_merge.merge(*whole, tensors)
    assert same(weights(*zero), weights(*base))
    for a, middle, b in zip(*(weights(*m) for m in (base, half, whole)), strict=True):
        torch.testing.assert_close(middle, (a + b) / 2, rtol=1e-5, atol=1e-6)


def test_unet_and_text_encoder_have_strengths_of_their_own() -> None:
    tensors = lora.export(*attached(LoRA(), noise=0.1), LoRA())
    base, models = tiny(), tiny()
    lora_merge.merge(*models, tensors, strength_unet=0.0)
    assert same(weights(models[0]), weights(base[0]))
    assert not same(weights(models[1]), weights(base[1]))


def test_alpha_left_out_means_the_rank() -> None:
    tensors = lora.export(*attached(LoRA(), noise=0.1), LoRA())
    silent = {name: t for name, t in tensors.items() if not name.endswith(".alpha")}
    one, other = tiny(), tiny()
    lora_merge.merge(*one, tensors)
    lora_merge.merge(*other, silent)
    assert same(weights(*one), weights(*other))


def test_a_dora_scale_on_the_input_axis_sets_the_columns_norms() -> None:
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    adapter = {
        "lora_down.weight": torch.ones(2, 4),
        "lora_up.weight": torch.ones(6, 2),
        "dora_scale": torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
    }
    norms = lora_merge.merged_weight(weight, adapter, 1.0).norm(dim=0)
    torch.testing.assert_close(norms, torch.tensor([1.0, 2.0, 3.0, 4.0]))


def damaged(kind: str) -> dict[str, Tensor]:
    tensors = lora.export(*attached(LoRA(), noise=0.1), LoRA())
    down, up = f"{Q}.lora_down.weight", f"{Q}.lora_up.weight"
    if kind == "half":
        del tensors[up]
    elif kind == "wide":
        tensors[down] = torch.zeros(4, 1024)
    elif kind == "ranks":
        tensors[up] = torch.zeros(8, 5)
    elif kind == "flat":
        tensors[down] = torch.zeros(())
    elif kind == "empty":
        tensors[down], tensors[up] = torch.zeros(0, 8), torch.zeros(8, 0)
    elif kind == "scale":
        tensors[f"{Q}.dora_scale"] = torch.ones(3, 1)
    elif kind == "alpha":
        tensors[f"{Q}.alpha"] = torch.ones(2)
    elif kind == "LoHa":
        tensors[f"{Q}.hada_w1_a"] = torch.zeros(8, 4)
    elif kind == "stranger":
        tensors["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"] = torch.zeros(8, 4)
    else:
        tensors = {}
    return tensors


@pytest.mark.parametrize(
    "kind",
    ["half", "wide", "ranks", "flat", "empty", "scale", "alpha", "LoHa", "stranger", "nothing"],
)
def test_an_adapter_that_does_not_fit_changes_nothing(kind: str) -> None:
    models = tiny()
    with pytest.raises(AdapterError, match=r"does not fit|only ComfyUI"):
        lora_merge.merge(*models, damaged(kind))
    assert same(weights(*models), weights(*tiny()))


def test_the_error_names_tensors_and_family() -> None:
    with pytest.raises(AdapterError, match=r"double_blocks.*FLUX LoRA"):
        lora_merge.merge(*tiny(), damaged("stranger"))
    with pytest.raises(AdapterError, match="is a LoHa, which only ComfyUI loads"):
        lora_merge.merge(*tiny(), damaged("LoHa"))


# ComfyUI's names


def comfyui_names(
    models: tuple[nn.Module, ...], prefix: str = "diffusion_model."
) -> dict[str, str]:
    """ComfyUI's name of each module by kohya's; `prefix` is the UNet's."""
    table = ldm_names.unet_names(models[0].config)
    found = {}
    for path, module in models[0].named_modules():
        theirs = ldm_names.lookup(path, table)
        if theirs and hasattr(module, "weight"):
            theirs = theirs if prefix.endswith(".") else theirs.replace(".", "_")
            found[f"lora_unet_{path}".replace(".", "_")] = prefix + theirs
    for path, module in models[1].named_modules():
        if hasattr(module, "weight"):
            own = "text_model." + path.removeprefix("text_model.")
            found[f"lora_te_{own}".replace(".", "_")] = f"text_encoders.clip_l.transformer.{own}"
    return found


@pytest.mark.parametrize("prefix", ["diffusion_model.", "lora_unet_"])
def test_a_lora_of_comfyuis_own_train_lora_was_refused(prefix: str) -> None:
    method = LoRA(targets="all", alpha=2)
    models = attached(method, noise=0.1)
    tensors, names = lora.export(*models, method), comfyui_names(tiny(), prefix)
    theirs = {
        f"{names[module]}.{ending}": tensor
        for module, endings in group_by_module(tensors).items()
        for ending, tensor in endings.items()
    }
    one, other = tiny(), tiny()
    lora_merge.merge(*one, tensors, 0.7, 0.4)
    lora_merge.merge(*other, theirs, 0.7, 0.4)
    assert theirs.keys().isdisjoint(tensors) or prefix == "lora_unet_"
    assert same(weights(*one), weights(*other))
    assert not same(weights(*one), weights(*tiny()))


NORM, BIAS = "input_blocks.1.0.in_layers.0", "out.2"
KOHYA_BIAS = "lora_unet_conv_out.diff_b"
TEXT_NORM = "text_encoders.clip_l.transformer.text_model.final_layer_norm"


@pytest.mark.parametrize(("diff", "diff_b"), [("diff", "diff_b"), ("w_norm", "b_norm")])
def test_plain_differences_are_added_by_their_models_strength(diff: str, diff_b: str) -> None:
    unet, text = tiny()
    differences = {
        f"diffusion_model.{NORM}.{diff}": torch.ones(8),
        f"diffusion_model.{NORM}.{diff_b}": torch.ones(8),
        f"{TEXT_NORM}.{diff}": torch.ones(12),
    }
    norm1 = unet.down_blocks[0].resnets[0].norm1
    before = [norm1.weight, norm1.bias]
    before = [value.detach().clone() for value in before]
    norm = next(m for name, m in text.named_modules() if name.endswith("final_layer_norm"))
    lora_merge.merge(unet, text, differences, 0.5, 0.25)
    after = [norm1.weight, norm1.bias]
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(b, a + 0.5)
    torch.testing.assert_close(norm.weight, torch.full((12,), 1.25))


@pytest.mark.parametrize(
    "wrong",
    [
        {f"diffusion_model.{NORM}.diff": torch.ones(9)},
        {f"diffusion_model.{BIAS}.diff_b": torch.ones(5)},
        {"diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.diff_b": torch.ones(8)},
        {f"diffusion_model.{NORM}.lora_up.weight": torch.ones(8, 1)},
        {f"diffusion_model.{NORM}.set_weight": torch.ones(8)},
        {"diffusion_model.joint_blocks.0.x.diff": torch.ones(8)},
        {"lora_te_text_model_final_layer_norm.diff": torch.ones(12)},  # ComfyUI ignores it
        {name: torch.ones(4) for name in (f"diffusion_model.{BIAS}.diff_b", KOHYA_BIAS)},
    ],
    ids=["shape", "bias", "no bias", "no matrix", "another kind", "another model", "text", "twice"],
)
def test_a_difference_that_does_not_fit_changes_nothing(wrong: dict[str, Tensor]) -> None:
    models = tiny()
    with pytest.raises(AdapterError, match="does not fit"):
        lora_merge.merge(*models, wrong)
    assert same(weights(*models), weights(*tiny()))
