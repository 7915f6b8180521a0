import pytest
from likeness.demo import weights
from likeness.demo.tokenizer import write_tokenizer
from likeness.trainers.errors import BaseModelError

USUAL = {
    "checkpoints": (
        *("dreamshaper_8.safetensors", "ponyDiffusionV6XL.safetensors"),
        *("realisticVisionV51.safetensors", "v1-5-pruned-emaonly-fp16.safetensors"),
        *("sd_xl_base_1.0.safetensors", "waiIllustrious_v14.safetensors"),
    ),
    "controlnet": (
        *("control_v11p_sd15_openpose_fp16.safetensors", "t2iadapter_openpose_sd14v1.pth"),
        *("openpose.safetensors", "xinsir-union.safetensors"),
    ),
}


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


@pytest.mark.parametrize("kind", weights.LISTED)
def test_a_new_loader_does_not_begin_with_the_miniature_among_usual_names(kind):
    """ComfyUI sorts each list by name, and a new loader takes the first."""
    listed = weights.FOLDER / weights.LISTED[kind]
    ours = {listed.name, *(path.name for path in listed.parent.glob("*.safetensors"))}
    for usual in USUAL[kind]:
        assert min(usual, *ours) == usual


def test_weights_that_were_never_there_say_how_to_get_them(tmp_path):
    assert not weights.available(tmp_path)
    with pytest.raises(BaseModelError, match="demo pretrain"):
        weights.find(weights.CHECKPOINT, tmp_path)


def test_a_file_without_a_digest_is_refused(folder):
    with pytest.raises(BaseModelError, match=f"does not list {weights.CONTROLNET}"):
        weights.find(weights.CONTROLNET, folder)


def test_the_repositorys_weights_are_whole_and_have_this_vocabulary(tmp_path):
    for name in weights.FILES:
        weights.find(name)
    for file in write_tokenizer(tmp_path).iterdir():
        assert (weights.FOLDER / weights.TOKENIZER / file.name).read_bytes() == file.read_bytes()
