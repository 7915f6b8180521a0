"""Prompts of a text encoder that learns nothing: encoded once, also for later runs."""

import errno
from types import SimpleNamespace

import pytest
import torch
from likeness.trainers import step, tensor_cache
from likeness.trainers.embeddings import open_embedding_cache
from likeness.trainers.recipe import Base, Recipe, TextEncoder
from likeness.trainers.run import Run
from torch import nn

IDS = torch.arange(2 * 77).reshape(2, 77)


@pytest.fixture
def run(tmp_path):
    recipe = Recipe(base=Base(digest="a" * 64), text_encoder=TextEncoder(train=False))
    places = SimpleNamespace(cache=tmp_path)
    return Run(None, recipe, places, None, lambda *_, **__: None, None, precision="bf16")


@pytest.fixture
def encoded(monkeypatch):
    """The rows that the text encoder was asked for."""
    rows = []

    def encode(text_encoder, ids, clip_skip):
        rows.append(ids)
        return ids[..., None].float() * torch.ones(4) / 3

    monkeypatch.setattr(step, "encode_text", encode)
    return rows


def frozen(run, ids=IDS, dtype=torch.float32):
    encoder = nn.Linear(1, 1, dtype=dtype)
    prompts = step.PromptEncoder(ids, 1, encoder, open_embedding_cache(run, encoder, ids))
    prompts.freeze()
    return prompts.embeddings


def test_a_later_run_does_not_encode_them_again_and_has_the_same(run, encoded):
    first = frozen(run)
    assert len(encoded) == 2 and first.shape == (2, 77, 4)
    assert torch.equal(frozen(run), first) and len(encoded) == 2


@pytest.mark.parametrize("other", ["base", "clip_skip", "precision", "ids", "dtype"])
def test_those_of_something_else_are_not_taken(run, encoded, other):
    frozen(run)
    if other == "precision":
        run.precision = "fp32"
    elif other == "base":
        run.recipe = run.recipe.changed(base={"digest": "b" * 64})
    elif other == "clip_skip":
        run.recipe = run.recipe.changed(text_encoder={"clip_skip": 2})
    dtype = torch.float16 if other == "dtype" else torch.float32
    frozen(run, IDS + 1 if other == "ids" else IDS, dtype)
    assert len(encoded) == 4


def test_a_text_encoder_that_learns_keeps_none(run):
    run.recipe = run.recipe.changed(text_encoder={"train": True})
    assert open_embedding_cache(run, nn.Linear(1, 1), IDS) is None


@pytest.mark.parametrize("harm", ["cut", "changed", "empty"])
def test_damaged_ones_are_made_anew(run, encoded, harm):
    first = frozen(run)
    (file,) = run.places.cache.rglob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= harm == "changed"
    file.write_bytes({"cut": content[:-5], "changed": content, "empty": b""}[harm])
    assert torch.equal(frozen(run), first) and len(encoded) == 4
    assert torch.equal(frozen(run), first) and len(encoded) == 4


def test_a_full_disk_is_told_and_the_run_goes_on(run, encoded, monkeypatch):
    def write(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensor_cache, "write_atomic", write)
    assert frozen(run) is not None
    assert "No space left" in run.notes[0] and "encodes them again" in run.notes[0]


def test_tf32_has_embeddings_of_its_own_where_it_computes_them(run, encoded):
    run.precision = "fp32"
    frozen(run)
    run.recipe = run.recipe.changed(compute={"tf32": True})
    frozen(run)
    assert len(encoded) == 4
    run.precision = "bf16"
    frozen(run)
    run.recipe = run.recipe.changed(compute={"tf32": False})
    frozen(run)
    assert len(encoded) == 6
