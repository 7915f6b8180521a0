"""What rows were taught with, by the runs that made their adapters."""

from types import SimpleNamespace

import torch
from likeness.comparison import report, row_adapters
from likeness.comparison.matrix import Variant, plan
from likeness.comparison.prompts import prompt_set_from_text
from likeness.trainers.adapter import save_adapter
from likeness.trainers.adapter_metadata import build_metadata
from likeness.trainers.digests import content_digest
from likeness.trainers.recipe import Recipe
from likeness.trainers.resize import RESIZED_FROM_KEY
from likeness.trainers.run_folder import RunFolder


def test_adapters_are_known_by_digests_of_when_they_were_drawn(tmp_path, monkeypatch):
    run, cache = tmp_path / "runs" / "anna-lora-r4-01234567", tmp_path / "cache"
    run.mkdir(parents=True)
    whole = tmp_path / f"{run.name}.safetensors"
    drawn, other = (tmp_path / f"{run.name}-step{n:06d}.safetensors" for n in (100, 200))
    for file in (whole, drawn, other):
        file.write_bytes(file.name.encode())
    result = SimpleNamespace(adapter=whole)
    monkeypatch.setattr(RunFolder, "result", lambda self: result)
    monkeypatch.setattr(row_adapters, "read_metadata", lambda path: path.name)
    digests = {file: content_digest(file, cache) for file in (whole, drawn)}
    rows = [Variant(name=f"r{n}", adapter=digest) for n, digest in enumerate(digests.values())]
    rows.append(Variant(name="other", adapter=content_digest(other)))
    found = row_adapters.find_row_adapters(
        plan(rows, prompt_set_from_text("a dog")), tmp_path / "runs", cache
    )
    assert [one.adapter for one in found] == [whole, drawn, None]
    assert [one.result for one in found] == [result, None, None]
    assert found[1].info == drawn.name


def test_a_file_saved_on_the_way_has_not_the_losses_of_the_whole_run(tmp_path, monkeypatch):
    recipe, result = Recipe(), SimpleNamespace(recipe=Recipe(), steps=800)
    monkeypatch.setattr(RunFolder, "result", lambda self: result)
    found = []
    for steps in (400, 800):
        file = tmp_path / f"{steps}.safetensors"
        save_adapter(file, {"x": torch.zeros(1)}, build_metadata(recipe, steps=steps, losses=[0.5]))
        found.append(row_adapters.read_row_adapter("r", file, tmp_path))
    assert [one.result for one in found] == [None, result]
    assert [one.recipe for one in found] == [recipe, recipe], "the file has it too"


def test_a_resized_lora_was_reported_with_the_rank_and_time_of_its_training(tmp_path, monkeypatch):
    recipe = Recipe()
    result = SimpleNamespace(recipe=recipe, steps=800)
    monkeypatch.setattr(RunFolder, "result", lambda self: result)
    weight = torch.zeros(1, 8)
    file, name = tmp_path / "r1.safetensors", "lora_unet_x.lora_down.weight"
    metadata = build_metadata(recipe, steps=800, losses=[0.5]) | {RESIZED_FROM_KEY: "4"}
    save_adapter(file, {name: weight}, metadata)
    row = row_adapters.read_row_adapter("r", file, tmp_path)
    assert row.result is None
    assert report._method(row.recipe, row.info) == "LoRA of rank 1, resized from 4"
    shown = report._training_row(row)
    assert "rank 1, resized from 4" in shown and "0.5000" not in shown


def test_a_lora_that_another_program_resized_was_reported_with_the_rank_of_its_recipe(tmp_path):
    file, name = tmp_path / "r2.safetensors", "lora_unet_x.lora_down.weight"
    save_adapter(file, {name: torch.zeros(2, 8)}, build_metadata(Recipe(), steps=8, losses=[0.5]))
    row = row_adapters.read_row_adapter("r", file, tmp_path)
    shown = report._training_row(row)
    assert "LoRA of rank 2<" in shown and "0.5000" in shown
