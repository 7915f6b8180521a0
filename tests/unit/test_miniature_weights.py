import pytest
from likeness.demo import weights
from likeness.demo.tokenizer import write_tokenizer
from likeness.trainers.errors import BaseModelError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / weights.JUDGE).write_bytes(b"judge")
    (tmp_path / weights.CHECKPOINT).parent.mkdir()
    (tmp_path / weights.CHECKPOINT).write_bytes(b"miniature")
    weights.write_digests(tmp_path)
    return tmp_path


def test_a_whole_file_is_found(folder):
    assert weights.available(folder)
    assert weights.find(weights.JUDGE, folder).read_bytes() == b"judge"


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_missing_or_damaged_file_is_named_with_its_digest(folder, damage):
    expected = weights.digest(folder / weights.CHECKPOINT)
    if damage == "missing":
        (folder / weights.CHECKPOINT).unlink()
    else:
        (folder / weights.CHECKPOINT).write_bytes(b"miniaturf")
    with pytest.raises(BaseModelError, match=f"{weights.CHECKPOINT} is {damage}.*{expected}"):
        weights.find(weights.CHECKPOINT, folder)


def test_weights_that_were_never_there_say_how_to_get_them(tmp_path):
    assert not weights.available(tmp_path)
    with pytest.raises(BaseModelError, match="demo pretrain"):
        weights.find(weights.CHECKPOINT, tmp_path)


def test_a_file_without_a_digest_is_refused(folder):
    with pytest.raises(BaseModelError, match=f"knows no file {weights.CONTROLNET}"):
        weights.find(weights.CONTROLNET, folder)


def test_the_repositorys_weights_are_whole_and_have_this_vocabulary(tmp_path):
    for name in weights.FILES:
        weights.find(name)
    for file in write_tokenizer(tmp_path).iterdir():
        assert (weights.FOLDER / weights.TOKENIZER / file.name).read_bytes() == file.read_bytes()
