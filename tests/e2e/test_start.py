"""Training that starts from a LoRA file, in whole runs."""

import runpy
from pathlib import Path

import pytest
import torch
from likeness.trainers.adapter import load_adapter, read_metadata
from likeness.trainers.run_folder import RunFolder
from safetensors.torch import load_file, save_file

MODELS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "models.py"))

STILL = ("optimizer.learning_rate=1e-9", "saving.dtype=fp32")


@pytest.fixture
def start(base, tmp_path):
    """A LoRA of rank 4 of another base, as its metadata say."""
    path = MODELS["write_random_lora"](base, tmp_path / "start.safetensors")
    metadata = read_metadata(path).metadata
    other = read_metadata(path).recipe.changed(base={"digest": "0" * 64})
    save_file(load_file(path), path, metadata | {"likeness.recipe": other.to_json(indent=None)})
    return path


def only(pattern, folder):
    (path,) = sorted(folder.glob(pattern))
    return path


def test_a_training_starts_from_a_file_that_its_run_folder_names(train, likeness, start, tmp_path):
    done = train("--start-from", start, settings=STILL)
    assert "start.safetensors, from which the training starts, was trained on another base" in (
        done.stderr
    )
    adapter = only("output/loras/*.safetensors", tmp_path)
    before, after = load_adapter(start), load_adapter(adapter)
    assert before.keys() == after.keys()
    assert all(torch.allclose(after[name], before[name], atol=1e-6) for name in before)
    run = RunFolder(only("output/likeness/runs/*", tmp_path))
    assert run.recipe().start and run.places().start == start
    again = likeness("train", run.path, "--device", "cpu").stdout
    assert "nothing was trained" in again
    missing = train("--output", "other", recipe=adapter, check=False)
    assert missing.returncode == 1 and "Give it with --start-from" in missing.stderr

    likeness("train", run.path, "--device", "cpu", "--more", 2)
    runs = (tmp_path / "output" / "likeness" / "runs").iterdir()
    (further,) = (RunFolder(path) for path in runs if path != run.path)
    assert further.recipe().continues == run.recipe().digest()
    assert further.recipe().start is None and further.places().start is None
    assert further.result().steps == 6


def first_loss(folder):
    return RunFolder(only("likeness/runs/*", folder)).result().losses[0]


def test_the_first_loss_is_that_of_the_file_at_any_rank_and_alpha(train, start, tmp_path):
    given = {
        "same": (),
        "padded": ("method.rank=6", "method.alpha=2", "method.targets=all"),
        "dora": ("method.dora=true",),
    }
    losses = {}
    for name, settings in given.items():
        one = (*settings, "schedule.steps=1")
        train("--start-from", start, "--output", name, settings=one)
        losses[name] = first_loss(tmp_path / name)
    train("--output", "plain", settings=["schedule.steps=1"])
    assert losses["padded"] == pytest.approx(losses["same"], rel=1e-4)
    assert losses["dora"] == pytest.approx(losses["same"], rel=1e-4)
    assert losses["same"] != pytest.approx(first_loss(tmp_path / "plain"), rel=1e-3)


def test_a_diffusers_folder_is_compared_when_it_is_loaded(train, start, base, tmp_path):
    """Its layers are not known before."""
    from likeness.trainers.base_model import load_base

    model, folder = load_base(base), tmp_path / "folder"
    for part in ("unet", "vae", "text_encoder", "tokenizer"):
        getattr(model, part).save_pretrained(folder / part)
    wide = ("--base", folder, "--start-from", start)
    refused = train(*wide, settings=["method.rank=2"], check=False)
    assert refused.returncode == 1 and "likeness resize start.safetensors 2" in refused.stderr
    train(*wide, settings=[*STILL, "schedule.steps=1"])
