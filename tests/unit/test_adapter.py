import json
import os
from pathlib import Path

import pytest
import torch
from likeness.trainers import adapter, files
from likeness.trainers.adapter import (
    AdapterInfo,
    describe,
    load_adapter,
    read_lora_shapes,
    read_metadata,
    recipe_of,
    save_adapter,
)
from likeness.trainers.adapter_metadata import build_metadata
from likeness.trainers.adapter_names import LORA_ADAPTER_METADATA_KEY
from likeness.trainers.errors import AdapterError, OutOfSpace
from likeness.trainers.metadata_filter import strip_prompts
from likeness.trainers.recipe import DreamBooth, LoRA, Recipe
from safetensors.torch import load_file, save_file

MODULE = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
RECIPE = Recipe(name="my dog", method=LoRA(rank=4, alpha=2))


def tensors(scale: float = 1.0, dora: bool = False) -> dict[str, torch.Tensor]:
    made = {
        f"{MODULE}.lora_down.weight": torch.linspace(-1, 1, 4 * 768).reshape(4, 768) * scale,
        f"{MODULE}.lora_up.weight": torch.linspace(0, 0.1, 320 * 4).reshape(320, 4),
        f"{MODULE}.alpha": torch.tensor(1 / 3),
    }
    return made | ({f"{MODULE}.dora_scale": torch.full((320, 1), 1 / 3)} if dora else {})


def metadata(recipe: Recipe = RECIPE) -> dict[str, str]:
    return build_metadata(recipe, steps=20, losses=[0.5] * 18 + [0.1, 0.2])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "dog.safetensors"
    save_adapter(path, tensors(), metadata())
    return path


# Writing.


def test_what_is_saved_is_read_back(saved: Path) -> None:
    found = load_adapter(saved)
    assert found.keys() == tensors().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors().items())


def test_fp16_is_for_the_matrices_only(tmp_path: Path) -> None:
    save_adapter(tmp_path / "a.safetensors", tensors(dora=True), {}, dtype="fp16")
    found = load_file(tmp_path / "a.safetensors")
    assert found[f"{MODULE}.lora_up.weight"].dtype == torch.float16
    for ending in ("alpha", "dora_scale"):  # 1/3 in fp16 would be off by 2e-4
        assert torch.equal(found[f"{MODULE}.{ending}"], tensors(dora=True)[f"{MODULE}.{ending}"])


def test_equal_results_are_equal_bytes_whatever_their_order(saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    save_adapter(again, dict(reversed(tensors().items())), dict(reversed(metadata().items())))
    assert again.read_bytes() == saved.read_bytes()
    save_adapter(again, tensors(), metadata())  # the same under the same name is no clash


def test_another_file_of_that_name_stays(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(AdapterError, match="already another adapter"):
        save_adapter(saved, tensors(scale=2), metadata())
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 70_000.0])
def test_values_that_fp16_cannot_hold_are_refused(tmp_path: Path, value: float) -> None:
    broken = tensors()
    broken[f"{MODULE}.lora_up.weight"][3, 1] = value
    with pytest.raises(AdapterError, match="lora_up"):
        save_adapter(tmp_path / "a.safetensors", broken, {}, dtype="fp16")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OutOfSpace, match="Free some space"):
        save_adapter(tmp_path / "a.safetensors", tensors(), {})
    assert os.listdir(tmp_path) == []


def test_too_little_room_is_told_before_writing(tmp_path: Path, monkeypatch) -> None:
    usage = adapter.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(adapter.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OutOfSpace, match="Not enough space"):
        save_adapter(tmp_path / "a.safetensors", tensors(), {})


def test_a_disk_that_fails_is_not_called_full(tmp_path: Path, monkeypatch) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files.os, "fsync", fails)
    with pytest.raises(AdapterError, match="Input/output error"):
        save_adapter(tmp_path / "a.safetensors", tensors(), {})
    with pytest.raises(AdapterError, match="cannot be written"):
        save_adapter(tmp_path / "missing" / "a.safetensors", tensors(), {})


def test_a_disk_that_forgets_is_caught(tmp_path: Path, monkeypatch) -> None:
    def forgets(path: Path) -> dict[str, torch.Tensor]:
        return {**load_file(path), f"{MODULE}.alpha": torch.tensor(0.5)}

    monkeypatch.setattr("safetensors.torch.load_file", forgets)
    with pytest.raises(AdapterError, match="differs from what was written"):
        save_adapter(tmp_path / "a.safetensors", tensors(), {})
    assert os.listdir(tmp_path) == []


# Metadata.


def test_metadata_says_what_other_programs_ask() -> None:
    found = metadata()
    assert found["ss_network_dim"] == "4"
    assert found["ss_network_alpha"] == "2.0"
    assert found["ss_base_model_version"] == "sd_v1"
    skips = RECIPE.changed(text_encoder={"clip_skip": 2})
    assert [metadata(one)["ss_clip_skip"] for one in (RECIPE, skips)] == ["1", "2"]
    assert found["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert found["modelspec.trigger_phrase"] == "sks man"
    assert found["likeness.loss"] == "0.15"  # the last tenth
    bound = metadata(RECIPE.changed(base={"digest": "ab" * 32}))
    assert bound["ss_new_sd_model_hash"] == "ab" * 32  # kohya's name for the base's SHA-256
    assert all(isinstance(value, str) for value in found.values())


def test_a_dreambooth_checkpoint_is_called_one() -> None:
    found = metadata(Recipe(method=DreamBooth()))
    assert found["modelspec.architecture"] == "stable-diffusion-v1"
    assert not any(key.startswith("ss_") for key in found)


def test_hashes_are_those_of_the_tensors_bytes(saved: Path) -> None:
    import hashlib

    content = saved.read_bytes()
    digest = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    found = read_metadata(saved).metadata
    assert found["sshs_model_hash"] == digest
    assert found["modelspec.hash_sha256"] == f"0x{digest}"


def test_the_recipe_comes_back_equal(saved: Path) -> None:
    assert recipe_of(saved) == RECIPE
    assert recipe_of(saved).digest() == RECIPE.digest()


def test_stripping_leaves_no_prompt(tmp_path: Path) -> None:
    recipe = RECIPE.changed(
        subject={"token": "zwxtoken", "class_word": "zwxclass", "prompt": "zwxprompt"},
        prior={"prompt": "zwxprior", "negative": "zwxnegative"},
        previews={"prompts": ["zwxpreview"], "negative": "zwxbad"},
    )
    stripped = strip_prompts(metadata(recipe))
    assert "zwx" not in json.dumps(stripped)
    assert stripped["ss_network_dim"] == "4"
    save_adapter(tmp_path / "a.safetensors", tensors(), stripped)
    with pytest.raises(AdapterError, match="stripped"):
        recipe_of(tmp_path / "a.safetensors")


def test_stripping_works_without_prior_or_recipe() -> None:
    assert "likeness.recipe" not in strip_prompts(metadata(RECIPE.changed(prior=None)))
    assert strip_prompts({"ss_network_dim": "8"}) == {"ss_network_dim": "8"}


# Reading.


def test_a_lora_is_described(saved: Path) -> None:
    info = read_metadata(saved)
    assert (info.kind, info.rank, info.alpha, info.tensors, info.steps) == ("lora", 4, 2.0, 3, 20)
    assert info.recipe == RECIPE
    assert info.loss == pytest.approx(0.15)
    assert describe(info) == (
        "SD 1.x LoRA, rank 4, alpha 2, 3 tensors, 20 steps, loss 0.15, recipe lora-r4"
    )


def test_dora_checkpoint_and_others_are_told_apart(tmp_path: Path) -> None:
    def kind(names: dict[str, torch.Tensor]) -> str:
        save_file(names, tmp_path / "x.safetensors")
        return read_metadata(tmp_path / "x.safetensors").kind

    one = torch.zeros(1)
    assert kind(tensors(dora=True)) == "dora"
    assert kind({"model.diffusion_model.out.0.weight": one}) == "checkpoint"
    assert kind({"emb_params": torch.zeros(2, 768)}) == "unknown"


def test_foreign_metadata_cannot_mislead_the_screen(tmp_path: Path) -> None:
    hostile = {
        "likeness.steps": "\x1b[2Jnan",
        "likeness.loss": "inf",
        "ss_network_alpha": "Dynamic",
        "likeness.recipe": '{"name": "../../etc"}',
        "modelspec.title": "two\nlines",
    }
    save_file(tensors(), tmp_path / "x.safetensors", hostile)
    info = read_metadata(tmp_path / "x.safetensors")
    assert (info.steps, info.loss, info.alpha, info.recipe) == (None, None, None, None)
    assert describe(info) == "SD 1.x LoRA, rank 4, 3 tensors"
    with pytest.raises(AdapterError, match="recipe"):
        recipe_of(tmp_path / "x.safetensors")


def test_a_file_without_recipe_has_none_to_give(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "x.safetensors")
    with pytest.raises(AdapterError, match="no recipe"):
        recipe_of(tmp_path / "x.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 8, 9, 300, -1])
def test_a_file_cut_short_is_refused(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    for read in (read_metadata, recipe_of, load_adapter):
        with pytest.raises(AdapterError, match=r"dog\.safetensors"):
            read(saved)


def test_a_file_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="cannot be read"):
        read_metadata(tmp_path / "none.safetensors")


def test_a_peft_configuration_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(2, 3)}, path)
    (tmp_path / "adapter_config.json").write_bytes(b'{"lora_alpha": "\xff"}')
    with pytest.raises(AdapterError, match=r"adapter_config\.json cannot be read: it is not UTF-8"):
        load_adapter(path)


@pytest.mark.parametrize(
    ("twice", "metadata", "said"),
    [
        (True, {}, "twice.* choose another"),
        (False, {LORA_ADAPTER_METADATA_KEY: "["}, "not a JSON object.* download it again"),
        (
            False,
            {LORA_ADAPTER_METADATA_KEY: '{"unet.alpha_pattern": {".*q": 2}}'},
            "by the pattern.* choose another",
        ),
    ],
)
def test_a_lora_that_cannot_be_followed_was_not_named(
    tmp_path: Path, twice: bool, metadata: dict[str, str], said: str
) -> None:
    path, module = tmp_path / "anna.safetensors", "mid_block.attentions.0.proj_in"
    tensors = {f"unet.{module}.lora_A.weight": torch.zeros(2, 8)}
    if twice:
        name = "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"
        tensors[name] = torch.zeros(2, 8)
    save_file(tensors, path, metadata)
    for read in (load_adapter, read_lora_shapes):
        with pytest.raises(AdapterError, match=f"anna.safetensors: .*{said}"):
            read(path)


def test_peft_files_take_alpha_from_their_configuration(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    unet = "base_model.model.mid_block.attentions.0.proj_in"
    factors = {
        f"{unet}.lora_A.weight": torch.zeros(2, 8),
        f"{unet}.lora_B.weight": torch.ones(8, 2),
    }
    save_file(factors, path)
    name = "lora_unet_mid_block_attentions_0_proj_in"
    assert f"{name}.alpha" not in load_adapter(path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 16, "r": 2}))
    assert load_adapter(path)[f"{name}.alpha"] == 16


def test_an_unknown_file_has_a_description() -> None:
    info = AdapterInfo("unknown", None, None, 2, None, None, None, "unknown kind", {})
    assert describe(info) == "unknown kind, 2 tensors"
