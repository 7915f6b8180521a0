"""Training that starts from a LoRA file: the model at step 0, and files that are refused."""

from __future__ import annotations

import json
import runpy
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from likeness.demo.random_model import write_random_model
from likeness.trainers import ldm_names, lora, lora_merge
from likeness.trainers.adapter import load_adapter
from likeness.trainers.adapter_names import group_by_module, module_name
from likeness.trainers.base_model import load_base
from likeness.trainers.digests import content_digest
from likeness.trainers.errors import AdapterError, LikenessError, RecipeError
from likeness.trainers.lora_layers import file_names, layers_of, read_layers
from likeness.trainers.lora_start import check_start, load_start
from likeness.trainers.presets import preset
from likeness.trainers.recipe import LoRA
from safetensors.torch import save_file
from torch import Tensor

MODELS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "models.py"))
attached, tiny = MODELS["attached"], MODELS["tiny"]

BLOCK = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0"
Q, FEED = f"{BLOCK}_attn1_to_q", f"{BLOCK}_ff_net_2"
CONV = "lora_unet_mid_block_resnets_0_conv1"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


@cache
def tiny_layers():
    unet, text = tiny()
    return layers_of(SimpleNamespace(unet=unet, text_encoder=text))


def trained(**method) -> dict[str, Tensor]:
    """The tensors of a LoRA of `tiny` that has learned something."""
    method = LoRA(**method)
    return lora.export(*attached(method, noise=0.1), method)


def write(path: Path, tensors: dict[str, Tensor], **metadata: str) -> Path:
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, path, metadata)
    return path


def started(path: Path, method: LoRA, models=None, seed: int = 5):
    """`tiny`, or `models`, with adapters that start from a file."""
    recipe = preset("lora-r4").changed(method=method)
    check_start(path, recipe, tiny_layers())
    found = load_start(path, content_digest(path), path.parent, tiny_layers())
    unet, text = models or tiny()
    lora.attach(unet, text, method, seed)
    lora.start_from(unet, text, method, found)
    return unet, text


@torch.no_grad()
def computed(unet, text) -> Tensor:
    """What the two models compute together, as one vector."""
    states = text.eval()(torch.arange(10).view(2, 5)).last_hidden_state
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    return unet.eval()(noise, 500, states).sample.flatten()


def merged(path: Path) -> Tensor:
    models = tiny()
    lora_merge.merge(*models, load_adapter(path))
    return computed(*models)


def assert_starts_equal(path: Path, method: LoRA) -> None:
    whole, base = merged(path), computed(*tiny())
    assert (whole - base).norm() > 0.05 * base.norm(), "the file must have an effect"
    assert (computed(*started(path, method)) - whole).norm() < 1e-5 * whole.norm()


# The model at step 0.


@pytest.mark.parametrize(
    "method",
    [
        {"rank": 4, "targets": "all"},
        {"rank": 4, "targets": "all", "alpha": 1},
        {"rank": 7, "targets": "all", "alpha": 16, "rslora": True},
        {"rank": 6, "targets": "all", "dora": True, "alpha": 3},
        {"rank": 5, "targets": "all", "dropout": 0.5},
    ],
    ids=["equal", "alpha", "rslora", "dora", "dropout"],
)
def test_at_step_0_the_model_is_the_base_with_the_file_merged(tmp_path, method):
    path = write(tmp_path / "a.safetensors", trained(rank=4, alpha=3, targets="all"))
    assert_starts_equal(path, LoRA(**method))


@pytest.mark.parametrize("rank", [4, 6])
def test_a_dora_starts_from_a_dora(tmp_path, rank):
    method = {"targets": "all", "dora": True}
    path = write(tmp_path / "a.safetensors", trained(rank=4, alpha=2, **method))
    assert_starts_equal(path, LoRA(rank=rank, **method))


def in_pefts_names(tensors: dict[str, Tensor], prefixes=("unet.", "text_encoder.")):
    """Tensors under the names of PEFT's own modules, without alpha."""
    endings = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}
    paths = {}
    for part, model in zip(("unet", "text_encoder"), tiny(), strict=True):
        for path, _ in model.named_modules():
            own = path if part == "unet" else f"text_model.{path.removeprefix('text_model.')}"
            paths[module_name(part, path)] = prefixes[part == "text_encoder"] + own
    return {
        f"{paths[module]}.{endings[ending]}": tensor
        for module, parts in group_by_module(tensors).items()
        for ending, tensor in parts.items()
        if ending in endings
    }


def test_alpha_of_diffusers_and_peft_is_that_of_their_metadata(tmp_path):
    tensors = trained(rank=4, alpha=3)
    config = {f"{part}.lora_alpha": 3 for part in ("unet", "text_encoder")}
    named = {"lora_adapter_metadata": json.dumps(config)}
    path = write(tmp_path / "diffusers.safetensors", in_pefts_names(tensors), **named)
    assert torch.equal(merged(path), merged(write(tmp_path / "own.safetensors", tensors)))
    assert_starts_equal(path, LoRA(rank=4, alpha=1))
    prefixes = ("base_model.model.", "base_model.model.")
    path = write(tmp_path / "adapter_model.safetensors", in_pefts_names(tensors, prefixes))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8}))
    assert_starts_equal(path, LoRA(rank=5))


@pytest.mark.parametrize("choice", [1, 2], ids=["ComfyUI", "LDM names with underscores"])
def test_names_of_comfyui_and_of_ldm_are_known(tmp_path, choice):
    unet, text = tiny()
    table = ldm_names.unet_names(unet.config)
    names = {}
    for part, model in (("unet", unet), ("text_encoder", text)):
        for path, _ in model.named_modules():
            known = list(file_names(part, path, table))
            names[known[0]] = known[min(choice, len(known) - 1)]
    tensors = {
        f"{names[module]}.{ending}": tensor
        for module, parts in group_by_module(trained(targets="all", alpha=1)).items()
        for ending, tensor in parts.items()
    }
    assert any("input_blocks" in name for name in tensors)
    assert_starts_equal(write(tmp_path / "a.safetensors", tensors), LoRA(rank=6, targets="all"))


def test_matrices_of_1x1_convolutions_may_be_flat(tmp_path):
    """As some programs store those of proj_in and proj_out."""
    tensors = {
        name: tensor.flatten(1) if "proj_in" in name and tensor.ndim else tensor
        for name, tensor in trained(targets="linear").items()
    }
    assert_starts_equal(write(tmp_path / "a.safetensors", tensors), LoRA(targets="linear"))


def test_layers_that_the_file_lacks_start_as_ever(tmp_path):
    path = write(tmp_path / "a.safetensors", trained(rank=2))
    wide = LoRA(rank=3, targets="all")
    assert_starts_equal(path, wide)
    with_file = lora.trainable_parameters(*started(path, wide))
    fresh = lora.trainable_parameters(*attached(wide, 5))
    for name in (f"unet.{CONV}.lora_down", f"unet.{FEED}.lora_down"):
        assert torch.equal(with_file[name], fresh[name])


def test_added_ranks_can_learn(tmp_path):
    """Their down rows are drawn as ever and their up columns are 0: the gradient is not."""
    given = trained(rank=2)
    path = write(tmp_path / "a.safetensors", given)
    named = lora.trainable_parameters(*started(path, LoRA(rank=5)))
    fresh = lora.trainable_parameters(*attached(LoRA(rank=5), 5))
    down, up = named[f"unet.{Q}.lora_down"], named[f"unet.{Q}.lora_up"]
    assert torch.equal(down[:2], given[f"{Q}.lora_down.weight"])
    assert torch.equal(down[2:], fresh[f"unet.{Q}.lora_down"][2:])
    assert torch.equal(up[:, :2], given[f"{Q}.lora_up.weight"]) and not up[:, 2:].any()


def test_an_equal_scale_takes_the_matrices_bit_for_bit(tmp_path):
    given = trained(rank=4, alpha=3)
    path = write(tmp_path / "a.safetensors", given)
    method = LoRA(rank=4, alpha=3)
    again = lora.export(*started(path, method), method)
    assert all(torch.equal(again[name], tensor) for name, tensor in given.items())


def test_a_16_bit_base_gets_the_files_fp32_matrices(tmp_path):
    given = trained()
    path = write(tmp_path / "a.safetensors", given)
    half = tuple(model.half() for model in tiny())
    named = lora.trainable_parameters(*started(path, LoRA(), half))
    assert {parameter.dtype for parameter in named.values()} == {torch.float32}
    assert torch.equal(named[f"unet.{Q}.lora_up"], given[f"{Q}.lora_up.weight"])


# Refusals.


def refusal(path: Path, **parts) -> LikenessError:
    """The error of a recipe that is to start from the file."""
    recipe = preset("lora-r4").changed(**parts)
    with pytest.raises(LikenessError) as caught:
        check_start(path, recipe, tiny_layers())
    assert path.name in str(caught.value)
    return caught.value


def test_a_higher_rank_is_refused_with_the_command_that_reduces_it(tmp_path):
    error = refusal(write(tmp_path / "a.safetensors", trained(rank=8)), method={"rank": 4})
    assert isinstance(error, RecipeError)
    assert "rank 8, more than method.rank, which is 4" in str(error)
    assert "likeness resize a.safetensors 4" in str(error)
    dora = write(tmp_path / "d.safetensors", trained(rank=8, dora=True))
    error = refusal(dora, method={"rank": 4, "dora": True})
    assert "set method.rank to 8." in str(error), "resize refuses DoRA"


@pytest.mark.parametrize(
    ("trained_with", "targets", "says"),
    [
        ("linear", "attention", "set method.targets to 'linear'"),
        ("all", "attention", "set method.targets to 'all'"),
        ("all", "linear", "set method.targets to 'all'"),
    ],
)
def test_layers_that_are_not_trained_are_refused_with_the_field_that_includes_them(
    tmp_path, trained_with, targets, says
):
    path = write(tmp_path / "a.safetensors", trained(targets=trained_with))
    assert says in str(refusal(path, method={"targets": targets}))


def test_a_layer_that_no_targets_train_is_named(tmp_path):
    other = {
        "lora_unet_conv_in.lora_down.weight": torch.ones(4, 4, 3, 3),
        "lora_unet_conv_in.lora_up.weight": torch.ones(8, 4, 1, 1),
    }
    path = write(tmp_path / "a.safetensors", trained() | other)
    assert "1 layers (conv_in) that no method.targets trains" in str(refusal(path))


def test_a_part_for_a_frozen_text_encoder_is_refused(tmp_path):
    path = write(tmp_path / "a.safetensors", trained())
    error = refusal(path, text_encoder={"train": False})
    assert "set text_encoder.train to true" in str(error)
    unet = {name: t for name, t in trained().items() if name.startswith("lora_unet_")}
    path = write(tmp_path / "unet.safetensors", unet)
    check_start(path, preset("lora-r4").changed(text_encoder={"train": False}), tiny_layers())


def test_a_dora_needs_a_dora(tmp_path):
    path = write(tmp_path / "a.safetensors", trained(dora=True))
    assert "set method.dora to true" in str(refusal(path))
    peft = {f"{Q}.lora_magnitude_vector": torch.ones(8)}
    path = write(tmp_path / "b.safetensors", trained() | peft)
    assert "set method.dora to true" in str(refusal(path))
    inputs = {f"{FEED}.dora_scale": torch.ones(1, 32)}
    path = write(tmp_path / "c.safetensors", trained(targets="linear") | inputs)
    error = refusal(path, method={"dora": True, "targets": "linear"})
    assert "scales are those of the inputs" in str(error)


LOHA = {f"{Q}.hada_w{n}_{side}": torch.ones(8, 4) for n in (1, 2) for side in "ab"}
LOKR = {f"{Q}.lokr_w1": torch.ones(2, 2), f"{Q}.lokr_w2": torch.ones(4, 4)}
GLORA = {f"{Q}.{part}.weight": torch.ones(8, 8) for part in ("a1", "a2", "b1", "b2")}
SDXL = {
    "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": torch.ones(
        4, 2048
    ),
    "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_up.weight": torch.ones(8, 4),
}


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (LOHA, "is a LoHa"),
        (LOKR, "is a LoKr"),
        (GLORA, "is a GLoRA"),
        ({f"{Q}.lora_mid.weight": torch.ones(4, 4, 1, 1)}, "is a Tucker LoCon"),
        (SDXL, "Detected type: SDXL LoRA"),
        ({"model.diffusion_model.out.2.weight": torch.ones(4, 8, 3, 3)}, "full checkpoint"),
        ({"emb_params": torch.ones(1, 12)}, "textual inversion"),
        ({"bundle_emb.x.clip_l": torch.ones(1, 12), **LOHA}, "bundle_emb"),
        ({f"{Q}.lora_up.weight": torch.ones(8, 4)}, "only one of its two matrices"),
        (
            {f"{Q}.lora_up.weight": torch.ones(8, 3), f"{Q}.lora_down.weight": torch.ones(4, 8)},
            "do not match",
        ),
        (
            {f"{Q}.lora_up.weight": torch.ones(8, 4), f"{Q}.lora_down.weight": torch.ones(4, 9)},
            "does not fit this model",
        ),
        (
            {
                f"{Q}.lora_up.weight": torch.ones(8, 4),
                f"{Q}.lora_down.weight": torch.ones(4, 8),
                f"{Q}.alpha": torch.ones(2),
            },
            "alpha of",
        ),
        ({f"{BLOCK}_norm1.diff": torch.ones(8)}, "without low-rank matrices"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_files_are_refused_by_what_they_are(tmp_path, tensors, says):
    assert says in str(refusal(write(tmp_path / "a.safetensors", tensors)))


def test_a_layer_under_two_names_is_refused(tmp_path):
    theirs = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q"
    pair = {
        f"{name}.lora_{side}.weight": torch.ones(8 if side == "up" else 4, 4 if side == "up" else 8)
        for name in (Q, theirs)
        for side in ("up", "down")
    }
    assert "contains a layer twice" in str(refusal(write(tmp_path / "a.safetensors", pair)))


def test_damaged_files_are_refused_in_a_sentence(tmp_path):
    path = write(tmp_path / "a.safetensors", trained())
    path.write_bytes(path.read_bytes()[:-10])
    assert "is truncated" in str(refusal(path))
    spoiled = trained() | {f"{Q}.lora_up.weight": torch.full((8, 4), torch.nan)}
    path = write(tmp_path / "b.safetensors", spoiled)
    load = partial(load_start, path, cache=tmp_path, layers=tiny_layers())
    with pytest.raises(AdapterError, match="non-finite"):
        load(content_digest(path))
    with pytest.raises(RecipeError, match="has changed since"):
        load("0" * 64)


def test_what_a_header_tells_of_a_base_is_what_the_model_has(tmp_path):
    base = write_random_model(tmp_path / "base.safetensors")
    assert read_layers(base) == layers_of(load_base(base))
    assert read_layers(tmp_path) is None and read_layers(tmp_path / "base.ckpt") is None
