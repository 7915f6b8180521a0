import errno
import io
import logging
import sys

import pytest
import torch
from likeness.comparison import sample
from likeness.comparison import terminal as comparison
from likeness.comparison.errors import ComparisonError
from likeness.terminal import main
from likeness.trainers.adapter import metadata_for
from likeness.trainers.presets import preset
from likeness.trainers.terminal import with_settings
from safetensors.torch import save_file


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "0"], "steps"),
        (["--width", "100"], "width"),
        (["--height", "32"], "height"),
        (["--guidance", "-1"], "guidance"),
        (["--seed", "-1"], "--seed"),
        (["--seed", str(2**64)], "--seed"),
        (["--name", "../x"], "--name"),
        (["--clip-skip", "13"], "--clip-skip"),
    ],
)
def test_a_wrong_value_of_draw_is_one_clear_error(capsys, arguments, says):
    assert main(["draw", "a dog", "--base", "gone.safetensors", *arguments]) == 1
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said


@pytest.mark.parametrize(("asked", "drawn"), [([], 2), (["--clip-skip", "1"], 1)])
def test_draw_takes_clip_skip_from_the_adapters_recipe(tmp_path, monkeypatch, asked, drawn):
    given = {}
    monkeypatch.setattr(sample, "load_with_adapter", lambda *a, **k: None)
    monkeypatch.setattr(sample, "draw", lambda model, prompt, **k: given.update(k) or [])
    recipe = preset("lora-r4").changed(text_encoder={"clip_skip": 2})
    adapter = tmp_path / "a.safetensors"
    metadata = metadata_for(recipe, steps=1, losses=[])
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(4, 8)}, adapter, metadata)
    words = ["draw", "a dog", "--base", "gone.safetensors", "--adapter", str(adapter)]
    assert main([*words, "--output", str(tmp_path), *asked]) == 0
    assert given["clip_skip"] == drawn


def test_a_full_disk_is_told_without_a_traceback(capsys, monkeypatch):
    def full(name):
        raise OSError(errno.ENOSPC, "No space left on device", "cells/1.png")

    monkeypatch.setattr(comparison, "find_plan", full)
    assert main(["plan", "study"]) == 1
    said = capsys.readouterr().err
    assert "The disk is full" in said and "cells/1.png" in said


def test_bitsandbytes_tells_its_errors_and_not_which_kernels_it_lacks(monkeypatch):
    """It would print "Failed to load CPU gemm_4bit_forward" at every command that imports peft."""
    told = {}

    def find(name):
        log = logging.getLogger("bitsandbytes.backends.cpu.ops")
        told.update({level: log.isEnabledFor(level) for level in (logging.WARNING, logging.ERROR)})
        raise ComparisonError("no plan")

    monkeypatch.setattr(comparison, "find_plan", find)
    assert main(["plan", "study"]) == 1
    assert told == {logging.WARNING: False, logging.ERROR: True}


def test_a_terminal_that_knows_no_arrows_is_told_the_rest(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert main(["recipe", "lora-r4"]) == 0
    print("subject \u2191")
    sys.stdout.flush()
    assert raw.getvalue().rstrip().endswith(rb"subject \u2191")


@pytest.mark.parametrize("turned", [False, True])
def test_settings_that_need_each_other_may_come_in_any_order(turned):
    settings = ["schedule.warmup=50", "schedule.course=cosine"]
    recipe = with_settings(preset("lora-r4"), settings[::-1] if turned else settings)
    assert (recipe.schedule.warmup, recipe.schedule.course) == (50, "cosine")


def test_a_part_given_whole_takes_its_fields_from_other_settings():
    settings = ['method={"kind": "lora", "rank": 2}', "method.targets=linear"]
    method = with_settings(preset("standard"), settings).method
    assert (method.kind, method.rank, method.targets) == ("lora", 2, "linear")
