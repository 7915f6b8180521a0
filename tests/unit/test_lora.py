import runpy
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from likeness.trainers import lora
from likeness.trainers.errors import AdapterError
from likeness.trainers.recipe import LoRA
from torch import Tensor, nn
from transformers import CLIPTextModel

MODELS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "models.py"))
tiny = MODELS["tiny"]

Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
CONV = "lora_unet_mid_block_resnets_0_conv1"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


def attached(
    method: LoRA, seed: int = 1, noise: float = 0.0
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Tiny models with adapters, moved from their start by `noise`."""
    unet, text = tiny()
    lora.attach(unet, text, method, seed)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in lora.trainable_parameters(unet, text).values():
            parameter += noise * torch.randn(parameter.shape, generator=generator)
    return unet, text


def draw(unet: UNet2DConditionModel) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(1, 4, 8, 8, generator=generator)
    embedding = torch.randn(1, 5, 12, generator=generator)
    with torch.no_grad():
        return unet.eval()(noise, 500, embedding).sample


def weights(*models: nn.Module) -> list[Tensor]:
    return [value.clone() for model in models for value in model.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# Attaching.


@pytest.mark.parametrize("method", [LoRA(), LoRA(targets="all"), LoRA(targets="all", dora=True)])
def test_fresh_adapters_change_nothing(method: LoRA) -> None:
    torch.testing.assert_close(draw(attached(method)[0]), draw(tiny()[0]), rtol=0, atol=1e-6)


def test_only_adapters_learn() -> None:
    unet, text = attached(LoRA(dora=True))
    learning = {id(p) for m in (unet, text) for p in m.parameters() if p.requires_grad}
    assert learning == {id(p) for p in lora.trainable_parameters(unet, text).values()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adapters_are_the_same_fp32_numbers_beside_a_16_bit_base(dtype: torch.dtype) -> None:
    unet, text = (model.to(dtype) for model in tiny())
    lora.attach(unet, text, LoRA(), 1)
    found, expected = (
        lora.trainable_parameters(unet, text),
        lora.trainable_parameters(*attached(LoRA())),
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert {p.dtype for p in found.values()} == {torch.float32}
    assert unet.conv_in.weight.dtype == dtype


def test_dora_starts_from_the_exact_norm_of_a_16_bit_base() -> None:
    unet = tiny()[0].half()
    lora.attach(unet, None, LoRA(targets="all", dora=True), 1)
    layer = unet.mid_block.resnets[0].conv1
    norms = layer.get_base_layer().weight.float().flatten(1).norm(dim=1)
    magnitude = lora.trainable_parameters(unet, None)[f"unet.{CONV}.magnitude"]
    torch.testing.assert_close(magnitude.flatten(), norms, rtol=1e-6, atol=0)


def test_the_seed_decides_and_nothing_else_is_disturbed() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    unet, text = tiny()
    torch.set_rng_state(before)
    lora.attach(unet, text, LoRA(), 1)
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (lora.trainable_parameters(*attached(LoRA(), seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = f"unet.{Q}.lora_down"
    assert not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], first[name.replace("to_q", "to_k")])
    wider = lora.trainable_parameters(*attached(LoRA(targets="all"), 1))
    assert torch.equal(first[name], wider[name])


def test_the_start_is_gaussian_with_deviation_one_over_rank() -> None:
    named = lora.trainable_parameters(*attached(LoRA(rank=8, targets="all")))
    down = torch.cat([p.flatten() for name, p in named.items() if name.endswith(".lora_down")])
    assert down.std().item() == pytest.approx(1 / 8, rel=0.02)
    assert not any(p.any() for name, p in named.items() if name.endswith(".lora_up"))


def test_a_text_encoder_that_is_not_trained_is_left_alone() -> None:
    unet, text = tiny()
    lora.attach(unet, None, LoRA(), 1)
    assert all(name.startswith("unet.") for name in lora.trainable_parameters(unet, text))
    assert all(name.startswith("lora_unet_") for name in lora.export(unet, text, LoRA()))


def test_targets_widen() -> None:
    modules = {}
    for targets in ("attention", "linear", "all"):
        named = lora.trainable_parameters(*attached(LoRA(targets=targets)))
        modules[targets] = {name.rsplit(".", 1)[0] for name in named}
    linear = modules["linear"] - modules["attention"]
    convolutions = modules["all"] - modules["linear"]
    assert modules["attention"] < modules["linear"] < modules["all"]
    ends = ("ff_net_0_proj", "ff_net_2", "proj_in", "proj_out", "mlp_fc1", "mlp_fc2")
    assert {end for end in ends if any(m.endswith(end) for m in linear)} == set(ends)
    assert all(m.endswith(ends) for m in linear)
    ends = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "samplers_0_conv")
    assert {end for end in ends if any(m.endswith(end) for m in convolutions)} == set(ends)
    assert all(m.endswith(ends) for m in convolutions)


def test_names_do_not_depend_on_the_release_of_transformers() -> None:
    class Older(nn.Module):
        def __init__(self, text: CLIPTextModel) -> None:
            super().__init__()
            self.text_model = text

    unet, text = tiny()
    older = text if hasattr(text, "text_model") else Older(text)
    lora.attach(unet, older, LoRA(), 1)
    expected = attached(LoRA())
    assert (
        lora.trainable_parameters(unet, older).keys() == lora.trainable_parameters(*expected).keys()
    )
    assert lora.export(unet, older, LoRA()).keys() == lora.export(*expected, LoRA()).keys()


# Files.


def test_a_file_has_kohyas_names_and_shapes() -> None:
    method = LoRA(rank=3, alpha=2, targets="all", dora=True)
    tensors = lora.export(*attached(method), method)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes[f"{Q}.lora_down.weight"] == (3, 8)
    assert shapes[f"{Q}.lora_up.weight"] == (8, 3)
    assert shapes[f"{Q}.dora_scale"] == (8, 1)
    assert shapes[f"{CONV}.lora_down.weight"] == (3, 16, 3, 3)
    assert shapes[f"{CONV}.lora_up.weight"] == (16, 3, 1, 1)
    assert shapes[f"{CONV}.dora_scale"] == (16, 1, 1, 1)
    assert shapes[f"{TEXT}.alpha"] == ()
    assert float(tensors[f"{TEXT}.alpha"]) == 2
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_strength_zero_is_the_base_and_a_half_is_halfway() -> None:
    method = LoRA(targets="all", dora=True)
    tensors = lora.export(*attached(method, noise=0.1), method)
    base, zero, half, whole = tiny(), tiny(), tiny(), tiny()
    lora.merge(*zero, tensors, 0.0, 0.0)
    lora.merge(*half, tensors, 0.5, 0.5)
    lora.merge(*whole, tensors)
    assert same(weights(*zero), weights(*base))
    for a, middle, b in zip(*(weights(*m) for m in (base, half, whole)), strict=True):
        torch.testing.assert_close(middle, (a + b) / 2, rtol=1e-5, atol=1e-6)


def test_unet_and_text_encoder_have_strengths_of_their_own() -> None:
    tensors = lora.export(*attached(LoRA(), noise=0.1), LoRA())
    base, models = tiny(), tiny()
    lora.merge(*models, tensors, strength_unet=0.0)
    assert same(weights(models[0]), weights(base[0]))
    assert not same(weights(models[1]), weights(base[1]))


def test_alpha_left_out_means_the_rank() -> None:
    tensors = lora.export(*attached(LoRA(), noise=0.1), LoRA())
    silent = {name: t for name, t in tensors.items() if not name.endswith(".alpha")}
    one, other = tiny(), tiny()
    lora.merge(*one, tensors)
    lora.merge(*other, silent)
    assert same(weights(*one), weights(*other))


def test_a_dora_scale_on_the_input_axis_sets_the_columns_norms() -> None:
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    adapter = {
        "lora_down.weight": torch.ones(2, 4),
        "lora_up.weight": torch.ones(6, 2),
        "dora_scale": torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
    }
    norms = lora.merged_weight(weight, adapter, 1.0).norm(dim=0)
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
    with pytest.raises(AdapterError, match="does not fit"):
        lora.merge(*models, damaged(kind))
    assert same(weights(*models), weights(*tiny()))


def test_the_error_names_tensors_and_family() -> None:
    with pytest.raises(AdapterError, match=r"double_blocks.*FLUX LoRA"):
        lora.merge(*tiny(), damaged("stranger"))
    with pytest.raises(AdapterError, match="LoHa"):
        lora.merge(*tiny(), damaged("LoHa"))


def computed(precision: torch.dtype, *models: nn.Module) -> tuple[Tensor, Tensor]:
    """What a UNet with a text encoder before it predicts, and all gradients of its adapters."""
    unet, text = models
    for model in models:
        model.zero_grad()
        for _, layer in lora._layers(model):
            layer.get_base_layer().to(precision)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
        embedding = text(torch.arange(10).view(2, 5)).last_hidden_state
        predicted = unet(noise, 500, embedding).sample.float()
    predicted.pow(2).mean().backward()
    gradients = [parameter.grad for parameter in lora.trainable_parameters(unet, text).values()]
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    return predicted.detach(), torch.cat([gradient.flatten() for gradient in gradients])


def left_to_peft(*models: nn.Module) -> None:
    for model in models:
        for _, layer in lora._layers(model):
            del layer.forward


def test_a_plain_adapter_computes_what_peft_computes():
    models = attached(LoRA(rank=2, alpha=3), noise=0.3)
    ours = computed(torch.float32, *models)
    left_to_peft(*models)
    theirs = computed(torch.float32, *models)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).norm() < 1e-5 * other.norm()


def test_a_plain_adapter_in_bf16_is_as_near_to_fp32_as_pefts():
    ratios = []  # one model's may be 1.6 by chance, either way
    for rank in (1, 2, 4, 8):
        models = attached(LoRA(rank=rank, alpha=3), noise=0.3)
        exact, ours = (computed(dtype, *models) for dtype in (torch.float32, torch.bfloat16))
        left_to_peft(*models)
        theirs = computed(torch.bfloat16, *models)
        errors = [[(a - b).norm() for a, b in zip(exact, c, strict=True)] for c in (ours, theirs)]
        ratios.append(torch.tensor(errors[0]) / torch.tensor(errors[1]))
    assert (torch.stack(ratios).log().mean(0).exp() < 1.2).all(), ratios


@pytest.mark.parametrize("special", [{"dora": True}, {"dropout": 0.5}])
def test_other_adapters_are_left_to_peft(special):
    unet, text = attached(LoRA(rank=2, **special))
    layers = [layer for model in (unet, text) for _, layer in lora._layers(model)]
    assert layers and not any("forward" in vars(layer) for layer in layers)
