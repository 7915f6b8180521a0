import json

import numpy as np
import pytest
import torch

pytest.importorskip("aggdraw", reason="draws the world")

from likeness.demo import pretrain, pretrain_diffusion, pretrain_judge, pretrain_shards, weights
from likeness.demo.pretrain_loop import Course


def test_all_stages_from_nothing_to_the_files_of_the_miniature(tmp_path, monkeypatch):
    trained = ("vae", "text_encoder", "unet", "controlnet", "judge")
    courses = {name: Course(4, 4, 1e-3) for name in trained}
    monkeypatch.setattr(pretrain_shards, "SHARD", 8)
    monkeypatch.setattr(pretrain_shards.draw_shard, "__defaults__", (8,))
    monkeypatch.setattr(pretrain_diffusion, "STEPS", 2)
    monkeypatch.setattr(pretrain_judge.held_out, "__defaults__", (32,))
    monkeypatch.setitem(pretrain.SCALES, "cpu", pretrain.Scale(8, 32, (16, 24), courses))
    said = []
    options = pretrain.Options(tmp_path, torch.device("cpu"), say=said.append)
    assert pretrain.pretrain("all", options)
    check_packed(tmp_path / "weights")
    for stage in (*trained, "second-judge"):
        sheets = list((tmp_path / stage / "sheets").glob("*.png"))
        assert bool(sheets) == (stage != "text_encoder"), stage
        lines = (tmp_path / stage / "log.jsonl").read_text().splitlines()
        assert np.isfinite(json.loads(lines[-1])["loss"]), stage
    assert json.loads((tmp_path / "judge" / "held_out.json").read_text())["images"] == 32
    assert "min left" in " ".join(said)


def check_packed(folder):
    """The miniature's files and no others, in the size that the repository may carry."""
    files = [path for path in folder.rglob("*.*") if path.is_file()]
    names = {path.relative_to(folder).as_posix() for path in files}
    vocabulary = {name for name in names if name.startswith(f"{weights.TOKENIZER}/")}
    assert vocabulary and names - vocabulary == {*weights.FILES, weights.DIGESTS}
    for name in weights.FILES:
        weights.find(name, folder)
    assert sum(path.stat().st_size for path in files) <= 32_000_000


def test_unpacked_weights_are_packed_to_the_same_files(tmp_path):
    options = pretrain.Options(tmp_path, torch.device("cpu"), say=lambda text: None)
    assert pretrain.pretrain("unpack", options) and pretrain.pretrain("pack", options)
    for name in weights.FILES:
        assert weights.digest(weights.find(name, tmp_path / "weights")) == weights.digest(
            weights.find(name)
        )
