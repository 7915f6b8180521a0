import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from likeness.demo.random_model import write_random_model
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def write_photos(folder, count=3, size=64):
    """Writes smooth random images, all different."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
        image.save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("base") / "base.safetensors", dtype="fp32")


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos")


@pytest.fixture
def likeness(tmp_path):
    """Runs a command as a user does: `python <folder> COMMAND`, in an empty directory."""

    def run(*arguments, check=True):
        done = subprocess.run(
            [sys.executable, str(ROOT), *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if check:
            assert done.returncode == 0, done.stderr + done.stdout
        return done

    return run


@pytest.fixture
def train(likeness, base, photos):
    """Trains a small recipe; `settings` are FIELD=VALUE, applied after the recipe's own."""

    def run(*arguments, settings=(), check=True, recipe="lora-r4"):
        small = [
            *("subject.resolution=64", "schedule.steps=4", 'prior={"count": 2, "steps": 2}'),
            *("compute.attention=sdpa", "compute.precision=fp32", "optimizer.name=adamw"),
        ]
        given = ["--base", base, "--photos", photos, "--device", "cpu", *arguments]
        flags = [flag for s in [*small, *settings] for flag in ("--set", s)]
        return likeness("train", recipe, *given, *flags, check=check)

    return run
