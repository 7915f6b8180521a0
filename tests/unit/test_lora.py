import runpy
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from likeness.trainers import lora
from likeness.trainers.recipe import LoRA
from torch import Tensor, nn
from transformers import CLIPTextModel

MODELS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "models.py"))
attached, tiny = MODELS["attached"], MODELS["tiny"]

Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
CONV = "lora_unet_mid_block_resnets_0_conv1"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


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
