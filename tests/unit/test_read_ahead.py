"""The base's files are read while libraries are imported, and what goes wrong is left to later."""

import builtins
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from likeness.trainers import read_ahead
from likeness.trainers.errors import RecipeError

FOLDERS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "folders.py"))


@pytest.fixture
def read(monkeypatch):
    """The names of the files that were opened."""
    names = []

    def opened(path, *given, **named):
        names.append(path.name)
        return builtins.open(path, *given, **named)

    monkeypatch.setattr(read_ahead, "open", opened, raising=False)
    monkeypatch.setattr(read_ahead.psutil, "virtual_memory", lambda: SimpleNamespace(available=64))
    return names


def reading(base):
    thread = read_ahead.read_ahead(SimpleNamespace(places=lambda: SimpleNamespace(base=base)))
    if thread.ident is not None:
        thread.join()
    return thread


def test_a_checkpoint_is_read(tmp_path, read):
    base = tmp_path / "base.safetensors"
    base.write_bytes(bytes(32))
    reading(base)
    assert read == ["base.safetensors"]


def test_of_a_folder_what_is_loaded_is_read(tmp_path, read):
    FOLDERS["write_folder"](tmp_path)
    (tmp_path / "safety_checker").mkdir()
    (tmp_path / "safety_checker" / "model.safetensors").write_bytes(bytes(8))
    reading(tmp_path)
    assert sorted(read) == sorted(
        ["config.json", "diffusion_pytorch_model.safetensors"] * 2
        + ["config.json", "model.safetensors"]
    )


def test_a_model_that_does_not_fit_into_the_memory_twice_is_not_read(tmp_path, read):
    base = tmp_path / "base.safetensors"
    base.write_bytes(bytes(33))
    reading(base)
    assert read == []


def test_of_several_processes_on_a_machine_the_first_one_reads(tmp_path, read, monkeypatch):
    base = tmp_path / "base.safetensors"
    base.write_bytes(bytes(32))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not reading(base).is_alive()
    assert read == []


def test_what_is_missing_is_left_to_whoever_loads_it(tmp_path, read, capsys):
    def damaged():
        raise RecipeError("places.json is damaged")

    reading(tmp_path / "gone.safetensors")
    reading(tmp_path)  # a folder without weights
    read_ahead.read_ahead(SimpleNamespace(places=damaged)).join()
    assert read == []
    assert capsys.readouterr().err == ""
