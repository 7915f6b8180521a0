"""Weight files are there whole or not at all, and pickles run no code."""

import contextlib
import os

import pytest
import torch
from likeness.trainers import files, weights
from likeness.trainers.errors import BaseModelError, OutOfSpace, RunFailed
from likeness.trainers.safetensors_file import read_header
from likeness.trainers.weights import read_weights, write_weights

TENSORS = {
    "b": torch.linspace(-2, 2, 15).reshape(3, 5),
    "a": torch.tensor([[1.5, 2.5]], dtype=torch.bfloat16),
    "scale": torch.tensor(0.18215),
    "empty": torch.zeros(0),
    "turned": torch.arange(6.0).reshape(2, 3).T,
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_is_written_is_read(tmp_path, dtype):
    path = tmp_path / "new" / "a.safetensors"
    write_weights(path, TENSORS, dtype, {"note": "ü"})
    found = read_weights(path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        wanted = tensor.to(dtype if tensor.ndim else torch.float32)
        assert found[name].dtype == wanted.dtype
        assert torch.equal(found[name], wanted)
    assert read_header(path).metadata == {"format": "pt", "note": "ü"}
    assert os.listdir(path.parent) == ["a.safetensors"]


def test_tensors_of_any_dtype_are_written_as_they_are(tmp_path):
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    kinds += [torch.int64, torch.int32, torch.uint8, torch.bool]
    tensors = {str(kind): torch.tensor([[0, 1, 1]] * 3).to(kind)[:, :2] for kind in kinds}
    tensors |= {f"{kind} scalar": torch.tensor(1).to(kind) for kind in kinds}
    tensors |= {"empty": torch.zeros(0, 3), "nan": torch.tensor([float("nan")])}
    weights.write_tensors(tmp_path / "a.safetensors", tensors)
    found = read_weights(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name].nan_to_num(), tensor.nan_to_num())


def test_equal_arguments_give_equal_bytes(tmp_path):
    metadata = {str(n): str(n) for n in range(20)}
    write_weights(tmp_path / "a", TENSORS, torch.float16, metadata)
    again = dict(reversed(TENSORS.items()))
    write_weights(tmp_path / "b", again, torch.float16, dict(reversed(metadata.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("value", [70000.0, float("nan"), float("-inf")])
def test_values_beyond_fp16_are_an_error_and_nothing_is_left(tmp_path, value):
    with pytest.raises(RunFailed, match=r"bad has values that are not finite in float16"):
        write_weights(
            tmp_path / "a.safetensors", TENSORS | {"bad": torch.tensor([value])}, torch.float16, {}
        )
    assert not os.listdir(tmp_path)


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutOfSpace, match="too little space"):
        write_weights(tmp_path / "a.safetensors", TENSORS, torch.float32, {})
    assert not os.listdir(tmp_path)


def test_a_disk_that_gives_back_other_values_is_an_error(tmp_path, monkeypatch):
    path, replaced = tmp_path / "a.safetensors", []
    real = files.os.fsync

    def flip_a_bit(handle):
        real(handle)
        written = next(tmp_path.iterdir())
        content = bytearray(written.read_bytes())
        content[-2] ^= 1
        written.write_bytes(content)
        replaced.append(written)

    monkeypatch.setattr(files.os, "fsync", flip_a_bit)
    with pytest.raises(RunFailed, match="other values"):
        write_weights(path, TENSORS, torch.float32, {})
    assert replaced
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("old_format", [True, False])
def test_a_pickle_of_tensors_is_read(tmp_path, nested, old_format):
    tensors = {"w": torch.arange(4.0), "epoch": 3}
    content = {"state_dict": tensors, "global_step": 1} if nested else tensors
    path = tmp_path / "a.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=not old_format)
    found = read_weights(path)
    assert list(found) == ["w"]
    assert torch.equal(found["w"], torch.arange(4.0))


class Code:
    def __reduce__(self):
        return (os.mkdir, ("ran",))


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"w": torch.zeros(1)}, "extra": Code()}, "a.ckpt")
    with pytest.raises(BaseModelError, match=r"can run code: convert it to \.safetensors"):
        read_weights(tmp_path / "a.ckpt")
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_no_pickle_is_opened_by_a_torch_whose_loader_runs_code(tmp_path, monkeypatch):
    torch.save({"w": torch.zeros(1)}, tmp_path / "a.ckpt")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu124")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(BaseModelError, match=r"2\.5\.1.*update PyTorch to 2\.6"):
        read_weights(tmp_path / "a.ckpt")


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt", "a.bin"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 cut"])
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BaseModelError, match=f"{name} is damaged"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("old_format", [True, False])
def test_a_checkpoint_cut_anywhere_is_named(tmp_path, old_format):
    """Cut at byte 18, one of the old format ended in a traceback."""
    path = tmp_path / "a.ckpt"
    torch.save({"w": torch.arange(4.0)}, path, _use_new_zipfile_serialization=not old_format)
    whole = path.read_bytes()
    for length in (*range(40), *range(40, len(whole), 11)):
        path.write_bytes(whole[:length])
        with pytest.raises(BaseModelError, match="damaged"):
            read_weights(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_zip_with_a_damaged_directory_is_named(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"w": torch.arange(4.0)}, path)
    whole = path.read_bytes()
    for place in range(whole.index(b"PK\x01\x02"), len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with contextlib.suppress(BaseModelError):  # what torch does not look at may be anything
            assert torch.equal(read_weights(path)["w"], torch.arange(4.0))


def test_a_pickle_of_something_else_is_named(tmp_path):
    torch.save([1, 2], tmp_path / "a.ckpt")
    with pytest.raises(BaseModelError, match="no state dict"):
        read_weights(tmp_path / "a.ckpt")


@pytest.mark.parametrize("name", ["base.safetensors", "base.ckpt"])
def test_a_base_that_memory_has_no_room_for_is_not_called_damaged(tmp_path, monkeypatch, name):
    def fail(*_, **__):
        raise OSError("(os error 1455)")

    monkeypatch.setattr(weights, "load_file", fail)
    monkeypatch.setattr(weights.torch, "load", fail)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(OSError, match="1455"):
        weights.read_weights(tmp_path / name)
