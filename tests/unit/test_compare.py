"""Cells are drawn as their plan says."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from likeness.comparison import compare, controlnet, sample
from likeness.comparison.errors import ComparisonError
from likeness.comparison.keypoints import yoga_poses
from likeness.comparison.matrix import Control, Variant, plan
from likeness.comparison.plan_file import PlanFile
from likeness.comparison.prompts import prompt_set_from_text
from likeness.comparison.row_adapters import RowAdapter


def test_cells_are_drawn_with_the_strengths_and_clip_skip_of_their_row(tmp_path, monkeypatch):
    loaded, drawn, told = [], [], []

    def load(base, adapter, **how):
        loaded.append((adapter.name, how["strength"], how["strength_text"]))
        return SimpleNamespace(unet=None)

    def draw(model, prompts, **how):
        drawn.append((*prompts, how["seed"], how["clip_skip"], how["control"]))
        return [np.zeros((8, 8, 3), np.uint8)]

    monkeypatch.setattr(sample, "load_with_adapter", load)
    monkeypatch.setattr(sample, "draw", draw)
    monkeypatch.setattr(controlnet, "load_controlnet", lambda *_, **__: "net")
    monkeypatch.setattr(
        controlnet, "controlnet_for_hint", lambda net, hint, strength: (net, strength)
    )
    row = Variant(name="r4", adapter="a" * 64, strength_unet=0.5, strength_text=0.25, clip_skip=2)
    made = plan(
        [row], prompt_set_from_text("a = a cat"), yoga_poses(), seed=7, with_pose="both",
        control=Control(strength=0.75),
    )  # fmt: skip
    files = compare.ComparisonFiles(
        base=tmp_path / "base", output=tmp_path, controlnet=tmp_path / "net"
    )
    compare.draw_missing(made, [RowAdapter("r4", Path("r4"))], files, on_cell=told.append)
    assert loaded == [("r4", 0.5, 0.25)]
    assert drawn == [("a cat", 7, 2, None), ("a cat", 7, 2, ("net", 0.75))]
    assert told == list(made.cells())


def test_a_row_that_starts_from_a_file_failed_only_after_the_rows_before_it_had_trained(tmp_path):
    start = {"kind": "lora", "start": "a" * 64}
    rows = [{"name": "r4", "preset": "lora-r4"}, {"name": "r8", "recipe": {"method": start}}]
    made = PlanFile.model_validate({"name": "two", "rows": rows})
    files = compare.ComparisonFiles(tmp_path / "base", tmp_path, photos=tmp_path)
    with pytest.raises(ComparisonError, match=r"The row r8 would start .* --adapter r8=FILE"):
        compare.train_missing(made, files, None)
