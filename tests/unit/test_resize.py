import json
from pathlib import Path

import pytest
import torch
from likeness.cli import main
from likeness.trainers.adapter import SCORES_KEY, load_adapter, read_metadata, save_adapter
from likeness.trainers.adapter_metadata import build_metadata
from likeness.trainers.adapter_names import LORA_ADAPTER_METADATA_KEY
from likeness.trainers.errors import AdapterError, OutputExists
from likeness.trainers.lora_merge import merged_weight
from likeness.trainers.recipe import LoRA, Recipe
from likeness.trainers.resize import RESIZED_FROM_KEY, resize

LINEAR = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
SHAPES = {LINEAR: (32, 24), CONV: (16, 8, 3, 3)}


def tensors(rank: int = 8, alpha: float = 2.0) -> dict[str, torch.Tensor]:
    made, random = {}, torch.Generator().manual_seed(1)
    for module, (out, *rest) in SHAPES.items():
        ones = (1,) * (len(rest) - 1)
        made[f"{module}.lora_down.weight"] = torch.randn(rank, *rest, generator=random)
        made[f"{module}.lora_up.weight"] = torch.randn(out, rank, *ones, generator=random)
        made[f"{module}.alpha"] = torch.tensor(alpha)
    return made


def change(found: dict[str, torch.Tensor], module: str) -> torch.Tensor:
    """What the adapter adds to a module's weight, as the loader merges it."""
    parts = {n.removeprefix(f"{module}."): t for n, t in found.items() if n.startswith(module)}
    return merged_weight(torch.zeros(SHAPES[module]), parts, 1.0).flatten(1)


def test_the_best_approximation_of_a_rank_is_kept() -> None:
    before = tensors()
    after, retained = resize(before, 3)
    squares = total = 0.0
    for module in SHAPES:
        whole = change(before, module)
        values = torch.linalg.svdvals(whole)
        found = change(after, module)
        # Eckart and Young: no matrix of rank 3 is nearer than by the values left out.
        assert torch.linalg.matrix_rank(found) == 3
        left_out = values[3:].square().sum()
        assert (whole - found).square().sum().item() == pytest.approx(left_out.item(), rel=1e-4)
        squares, total = squares + values[:3].square().sum().item(), total + whole.square().sum()
        assert after[f"{module}.alpha"] == 3
        assert after[f"{module}.lora_down.weight"].shape == (3, *SHAPES[module][1:])
    assert retained == pytest.approx(squares / float(total), rel=1e-5) and 0.3 < retained < 0.9


def test_a_rank_that_is_there_changes_nothing() -> None:
    after, retained = resize(tensors(), 8)
    assert retained == pytest.approx(1)
    for module in SHAPES:
        assert torch.allclose(change(after, module), change(tensors(), module), atol=1e-4)


def test_modules_of_a_lower_rank_keep_theirs() -> None:
    mixed = tensors(rank=2) | {n: t for n, t in tensors().items() if n.startswith(CONV)}
    after, _ = resize(mixed, 4)
    ranks = {module: len(after[f"{module}.lora_down.weight"]) for module in SHAPES}
    assert ranks == {LINEAR: 2, CONV: 4}


def test_an_adapter_that_changes_nothing_stays_one() -> None:
    still = {n: t * 0 if "lora_up" in n else t for n, t in tensors().items()}
    after, retained = resize(still, 1)
    assert retained == 1 and not change(after, LINEAR).any()


@pytest.mark.parametrize("extra", ["dora_scale", "lora_mid.weight", "hada_w1_a"])
def test_other_kinds_are_refused_by_name(extra: str) -> None:
    with pytest.raises(AdapterError, match=r"1 of 2 modules.*attn2_to_k"):
        resize(tensors() | {f"{LINEAR}.{extra}": torch.ones(32, 1)}, 2)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "dog.safetensors"
    said = build_metadata(Recipe(method=LoRA(rank=8, alpha=2)), steps=20, losses=[0.5])
    save_adapter(path, tensors(), said | {SCORES_KEY: "{}"}, "fp16")
    return path


def test_a_file_is_resized_from_the_terminal(saved: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["resize", str(saved), "2"]) == 0
    told, to = capsys.readouterr().out, saved.with_name("dog-r2.safetensors")
    assert str(to) in told and "% of the change kept" in told
    info = read_metadata(to)
    assert (info.rank, info.alpha, info.steps) == (2, 2.0, 20)
    assert info.metadata[RESIZED_FROM_KEY] == "8" and info.recipe == read_metadata(saved).recipe
    assert SCORES_KEY not in info.metadata and SCORES_KEY in read_metadata(saved).metadata
    found = load_adapter(to)
    assert found[f"{LINEAR}.lora_up.weight"].dtype == torch.float16
    wanted = change(resize(load_adapter(saved), 2).tensors, LINEAR)
    assert torch.allclose(change(found, LINEAR), wanted, atol=0.02)


def test_a_resized_file_said_what_only_held_for_the_other(tmp_path: Path) -> None:
    said = build_metadata(Recipe(method=LoRA(rank=8, targets="all")), steps=20, losses=[])
    other = {LORA_ADAPTER_METADATA_KEY: '{"unet.lora_alpha": 8}', "sshs_legacy_hash": "01234567"}
    save_adapter(tmp_path / "dog.safetensors", tensors(), said | other, "fp16")
    assert main(["resize", str(tmp_path / "dog.safetensors"), "2"]) == 0
    found = read_metadata(tmp_path / "dog-r2.safetensors").metadata
    assert not other.keys() & found.keys(), "diffusers refuses alphas in both places"
    assert found["ss_output_name"] == "dog-r2"
    assert json.loads(found["ss_network_args"]) == {"conv_dim": 2, "conv_alpha": 2.0}


def test_a_file_that_is_resized_twice_names_the_rank_that_was_trained(saved: Path) -> None:
    for rank in ("4", "2"):
        assert main(["resize", str(saved), rank]) == 0
        saved = saved.with_name(f"{saved.stem}-r{rank}.safetensors")
    assert read_metadata(saved).metadata[RESIZED_FROM_KEY] == "8"


@pytest.mark.parametrize(("rank", "says"), [("8", "has rank 8"), ("0", "at least 1")])
def test_a_rank_that_is_none_to_resize_to_is_refused(saved, capsys, rank, says) -> None:
    assert main(["resize", str(saved), rank]) == 1
    assert says in capsys.readouterr().err
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_another_file_is_not_written_over(saved: Path, tmp_path: Path) -> None:
    from likeness.trainers.resize import resize_file

    with pytest.raises(OutputExists):
        resize_file(saved, 2, saved)
    assert read_metadata(saved).rank == 8
