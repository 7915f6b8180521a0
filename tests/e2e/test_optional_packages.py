"""Optional packages that fail at import do not end a training that does without them."""

import pytest


def write_broken(folder, package):
    """An installed package that raises when diffusers or peft imports it."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text("raise RuntimeError('built for another torch')")
    about = folder / f"{package}-0.99.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.99.0\n")


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Broken xformers and bitsandbytes, before all others on the path of child processes."""
    for package in ("xformers", "bitsandbytes"):
        write_broken(tmp_path / "packages", package)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))


def test_a_broken_xformers_or_bitsandbytes_ended_every_training(
    broken, train, likeness, base, tmp_path
):
    train()
    (adapter,) = tmp_path.glob("output/loras/*.safetensors")
    likeness(
        *("draw", "a photo of sks man", "--base", base, "--adapter", adapter),
        *("--width", 64, "--height", 64, "--steps", 1),
    )


def test_a_broken_package_that_a_run_asks_for_is_told_and_done_without(broken, train, tmp_path):
    settings = ["compute.attention=xformers", "prior=null", "schedule.steps=1"]
    train(recipe="lora-r1", settings=settings)
    train(recipe="standard", settings=[*settings, "compute.attention=sdpa"])
    logs = "".join(
        path.read_text(encoding="utf-8") for path in tmp_path.glob("output/likeness/runs/*/log.txt")
    )
    for package in ("xformers", "bitsandbytes"):
        line = f"{package} is not used: it is installed but cannot be imported (RuntimeError: "
        assert logs.count(f"{line}built for another torch") == 1


def test_8_bit_adam_names_what_is_wrong_with_bitsandbytes(broken, train):
    done = train(settings=["optimizer.name=adamw8bit", "prior=null"], check=False)
    assert done.returncode != 0
    assert "built for another torch" in done.stderr
