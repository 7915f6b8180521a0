import json
from pathlib import Path

import pytest
import torch
from likeness.trainers import safetensors_file
from likeness.trainers.safetensors_file import header_with_metadata, read_header, serialise
from safetensors.torch import load_file, save_file


def raw(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(**changed: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changed}


def test_a_header_says_what_the_library_wrote(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.float16)}
    save_file(tensors, tmp_path / "x", {"note": "ü"})
    header = read_header(tmp_path / "x")
    assert header.shapes == {"a": (2, 3), "b": ()}
    assert header.dtypes == {"a": "F32", "b": "F16"}
    assert header.metadata == {"note": "ü"}


def test_serialised_bytes_are_read_by_the_library(tmp_path: Path) -> None:
    from safetensors import safe_open

    (tmp_path / "x").write_bytes(serialise({"a": torch.arange(3.0)}, {"z": "é\n", "a": "1"}))
    with safe_open(tmp_path / "x", "pt") as file:
        assert torch.equal(file.get_tensor("a"), torch.arange(3.0))
        assert file.metadata().items() >= {"z": "é\n", "a": "1"}.items()
    assert read_header(tmp_path / "x").metadata["z"] == "é\n"


@pytest.mark.parametrize("old", [None, {"note": "as it was", "gone": "1"}])
def test_a_header_with_other_metadata_leaves_the_tensors(
    tmp_path: Path, old: dict[str, str] | None
) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7, dtype=torch.int64)}
    save_file(tensors, tmp_path / "x", old)
    with open(tmp_path / "x", "rb") as file:
        (tmp_path / "y").write_bytes(
            header_with_metadata(file, {"z": "é", "note": "new"}) + file.read()
        )
    assert list(read_header(tmp_path / "y").metadata.items()) == [("note", "new"), ("z", "é")]
    found = load_file(tmp_path / "y")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        (b"[" * 100_000, b"", "not JSON"),
        (b"\xff\xfe{}", b"", "not JSON"),
        ([], b"", "not a JSON object"),
        ({"__metadata__": {"a": 1}}, b"", "metadata"),
        ({"__metadata__": []}, b"", "metadata"),
        ({"a": entry()}, b"123", "truncated"),
        ({"a": entry()}, b"12345", "after its last"),
        ({"a": entry(shape=[10**30])}, b"1234", "damaged entry"),
        ({"a": entry(shape=[1] * 100)}, b"1234", "damaged entry"),
        ({"a": entry(shape="abc")}, b"1234", "damaged entry"),
        ({"a": entry(shape=[True])}, b"1234", "damaged entry"),
        ({"a": entry(data_offsets=[0])}, b"1234", "damaged entry"),
        ({"a": entry(data_offsets=[-4, 4])}, b"1234", "damaged entry"),
        ({"a": entry(data_offsets=[4, 0])}, b"", "impossible size"),
        ({"a": entry(data_offsets=[0, 400])}, b"1" * 400, "impossible size"),
        ({"a": 3}, b"", "damaged entry"),
    ],
)
def test_a_hostile_header_is_refused(
    tmp_path: Path, header: object, data: bytes, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        read_header(raw(tmp_path / "x", header, data))


def test_a_length_beyond_the_file_is_not_allocated(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="truncated"):
        read_header(tmp_path / "x")


def test_a_huge_header_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "x", "wb") as file:
        file.write((safetensors_file.HEADER_LIMIT + 1).to_bytes(8, "little"))
        file.truncate(safetensors_file.HEADER_LIMIT + 1000)  # sparse
    with pytest.raises(ValueError, match="the limit is"):
        read_header(tmp_path / "x")


def test_huge_metadata_is_refused(tmp_path: Path) -> None:
    header = {"__metadata__": {"a": "x" * (safetensors_file.METADATA_LIMIT + 1)}}
    with pytest.raises(ValueError, match="characters of metadata"):
        read_header(raw(tmp_path / "x", header))
