"""The files that decide a cell, over stand-ins for ComfyUI's modules."""

from __future__ import annotations

import importlib
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from likeness.comparison.matrix import Variant, plan
from likeness.comparison.prompts import prompt_set_from_text
from likeness.trainers.adapter import save_adapter
from likeness.trainers.adapter_metadata import build_metadata
from likeness.trainers.digests import content_digest
from likeness.trainers.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))
MODULE = "lora_unet_mid_block_attentions_0_proj_in"


@pytest.fixture
def stamps(tmp_path, monkeypatch):
    """The module; ComfyUI's models are what lies in folders of `tmp_path`."""

    def names(kind):
        folder = tmp_path / kind
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))

    STUB["install"](
        {
            "get_filename_list": names,
            "get_full_path": lambda kind, name: str(tmp_path / kind / name),
            "folder_names_and_paths": {},
            "exists_annotated_filepath": lambda name: False,
        }
    )
    module = importlib.import_module("likeness.nodes.file_digests")
    monkeypatch.setattr(module, "interrupted", lambda: False)
    yield module
    STUB["install"]()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "prompt",
    [
        "a dog, embedding:anna",
        "embedding:anna.pt in the rain",
        "a (embedding:anna:1.2) dog",
        "embedding:anna, a dog",
        "a dog embedding:anna:0.5",
        "embedding:anna<lora>",
    ],
)
def test_a_replaced_embedding_left_the_cells_of_its_prompts_as_they_were(stamps, tmp_path, prompt):
    file = write(tmp_path / "embeddings" / "anna.pt", b"one")
    (before,) = stamps.make_file_digester(tmp_path)(prompt)
    write(file, b"another")
    (after,) = stamps.make_file_digester(tmp_path)(prompt)
    assert before != after == content_digest(file, tmp_path)


def test_an_embedding_of_a_subfolder_is_found_and_one_that_is_gone_is_none(stamps, tmp_path):
    file = write(tmp_path / "embeddings" / "people" / "ben.safetensors", b"two")
    assert stamps.find_embeddings("embedding:people/ben and embedding:gone") == [file]
    for text in ("embedding:../../secret", "embedding:", "an embedding: ben", "embedding:/ben"):
        assert stamps.find_embeddings(text) == []


@pytest.fixture
def bases(tmp_path):
    return [write(tmp_path / "checkpoints" / f"{n}.safetensors", n.encode()) for n in "ab"]


def lora_of(base, path, known):
    recipe = Recipe(base={"digest": content_digest(base, known)})
    lora = {
        f"{MODULE}.lora_down.weight": torch.zeros(4, 8),
        f"{MODULE}.lora_up.weight": torch.zeros(8, 4),
    }
    path.parent.mkdir(exist_ok=True)
    save_adapter(path, lora, build_metadata(recipe, steps=8, losses=[]))


def loader(name):
    return {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}}


def test_rows_of_another_base_were_told_nowhere_in_a_comparison(stamps, bases, tmp_path):
    for base, name in zip(bases, ("same", "other"), strict=True):
        lora_of(base, tmp_path / "loras" / f"{name}.safetensors", tmp_path)
    rows = [Variant(name="base"), Variant(name="r4", adapter="4" * 64)]
    rows += [Variant(name="r8", adapter="8" * 64)]
    adapters = (stamps.BASE, "same.safetensors", "other.safetensors")
    matrix = SimpleNamespace(plan=plan(rows, prompt_set_from_text("a = a dog")), adapters=adapters)

    def remark(*names):
        return stamps.base_mismatch_warning(matrix, dict(enumerate(map(loader, names))), tmp_path)

    assert remark("a.safetensors") == "Trained on another base model than the one loaded: r8."
    assert remark("b.safetensors") == "Trained on another base model than the one loaded: r4."
    assert remark("a.safetensors", "b.safetensors") == remark() == ""
    assert remark(["3", 0]) == remark("gone.safetensors") == "", "nobody knows which base it is"
