"""A digest is that of the content, wherever it lies, remembered while the file is the same."""

import json
import os
import runpy
from pathlib import Path

import pytest
from likeness.trainers.digests import content_digest
from likeness.trainers.errors import BaseModelError

FOLDERS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "folders.py"))
write_folder = FOLDERS["write_folder"]


def test_the_digest_is_of_the_content_alone(tmp_path):
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    a.write_bytes(b"same")
    b.write_bytes(b"same")
    # $ printf same | sha256sum
    known = "0967115f2813a3541eaef77de9d9d5773f1c0c04314b0bbfe4ff3b3b1c55b5d5"
    assert content_digest(a) == content_digest(b) == known


def test_the_digest_of_a_folder_follows_what_is_loaded(tmp_path):
    folder = write_folder(tmp_path / "model")
    digest = content_digest(folder)
    (folder / "README.md").write_text("not loaded")
    assert content_digest(folder) == digest
    assert content_digest(write_folder(tmp_path / "copy")) == digest
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"other")
    assert content_digest(folder) != digest


def test_the_digest_is_remembered_until_the_file_changes(tmp_path):
    file, cache = tmp_path / "a.safetensors", tmp_path / "cache"
    file.write_bytes(b"one")
    first, stamp = content_digest(file, cache), file.stat().st_mtime_ns
    file.write_bytes(b"two")
    os.utime(file, ns=(stamp, stamp))
    assert content_digest(file, cache) == first  # same size and time: not read again
    os.utime(file, ns=(stamp, stamp + 1))
    assert content_digest(file, cache) == content_digest(file) != first


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"a": 1}'])
def test_a_damaged_cache_is_rebuilt(tmp_path, damage):
    file, cache = tmp_path / "a.safetensors", tmp_path / "cache"
    file.write_bytes(b"one")
    cache.mkdir()
    (cache / "digests.json").write_text(damage)
    assert content_digest(file, cache) == content_digest(file)
    assert str(file.resolve()) in json.loads((cache / "digests.json").read_text())


def test_the_digest_of_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(BaseModelError, match="cannot be read"):
        content_digest(tmp_path / "none.safetensors")


def test_a_file_of_gigabytes_was_read_to_its_end_after_a_cancel(tmp_path):
    file, seen = tmp_path / "a.safetensors", []
    file.write_bytes(bytes(3 << 20))

    def cancelled_at_the_second_block(path):
        seen.append(path)
        if len(seen) == 2:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        content_digest(file, tmp_path / "cache", cancelled_at_the_second_block)
    assert seen == [file, file]
    whole = content_digest(file, tmp_path / "cache", lambda path: None)
    assert whole == content_digest(file)
    content_digest(file, tmp_path / "cache", seen.append)
    assert len(seen) == 2, "it is remembered, and not read"
