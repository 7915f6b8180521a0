"""The tokenizer is found on this machine or the message says where it was looked for."""

import errno
import json
import shutil

import pytest
from likeness.demo.random_model import write_small_tokenizer
from likeness.trainers.errors import BaseModelError, RunFailed
from likeness.trainers.tokenizer import find_tokenizers, load_tokenizer, save_tokenizer_beside


@pytest.fixture(autouse=True)
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the hub, so that this machine's own does not matter."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_the_folder_beside_the_file_comes_first(tmp_path):
    for name in ("other", "model_tokenizer"):
        write_small_tokenizer(tmp_path / name)
    base = tmp_path / "model.safetensors"
    beside, other = tmp_path / "model_tokenizer", tmp_path / "other"
    assert find_tokenizers(base, [other]) == [beside, other]
    shutil.rmtree(beside)
    assert find_tokenizers(base, [tmp_path / "none", other]) == [other]


def test_a_diffusers_folder_has_its_own(tmp_path):
    write_small_tokenizer(tmp_path / "model" / "tokenizer")
    assert find_tokenizers(tmp_path / "model") == [tmp_path / "model" / "tokenizer"]


def test_the_hub_cache_is_the_last_resort(tmp_path, hub_cache):
    repository = hub_cache / "models--openai--clip-vit-large-patch14"
    write_small_tokenizer(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    write_small_tokenizer(tmp_path / "given")
    found = find_tokenizers(tmp_path / "model.safetensors", [tmp_path / "given"])
    assert found == [tmp_path / "given", repository / "snapshots" / "abc"]


def test_the_message_lists_every_place(tmp_path):
    with pytest.raises(BaseModelError) as error:
        find_tokenizers(tmp_path / "model.safetensors", [tmp_path / "first", tmp_path / "second"])
    for place in ("model_tokenizer", "first", "second", "clip-vit-large-patch14", "v1-5"):
        assert place in str(error.value)


def test_a_prompt_has_77_tokens_whatever_the_folder_says(tmp_path):
    size = write_small_tokenizer(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 8192}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.model_max_length == 77
    assert len(tokenizer) == size
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (size - 2, size - 1)


def test_a_damaged_tokenizer_is_named(tmp_path):
    write_small_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(BaseModelError, match="cannot be read"):
        load_tokenizer(tmp_path)


def test_a_checkpoint_keeps_the_tokenizer_of_its_base(tmp_path):
    size = write_small_tokenizer(tmp_path / "base_tokenizer")
    (tmp_path / "base_tokenizer" / "notes.bin").write_bytes(b"")
    save_tokenizer_beside(
        tmp_path / "new" / "tuned.safetensors", load_tokenizer(tmp_path / "base_tokenizer")
    )
    (found,) = find_tokenizers(tmp_path / "new" / "tuned.safetensors")
    assert found == tmp_path / "new" / "tuned_tokenizer"
    assert len(load_tokenizer(found)) == size
    assert not (found / "notes.bin").exists()


def test_clips_own_tokenizer_is_not_copied(tmp_path, monkeypatch):
    size = write_small_tokenizer(tmp_path / "base_tokenizer")
    monkeypatch.setattr("likeness.trainers.tokenizer._CLIP_VOCAB_SIZE", size)
    save_tokenizer_beside(
        tmp_path / "tuned.safetensors", load_tokenizer(tmp_path / "base_tokenizer")
    )
    assert not (tmp_path / "tuned_tokenizer").exists()


def test_a_tokenizer_that_cannot_be_kept_is_an_error(tmp_path):
    write_small_tokenizer(tmp_path / "base_tokenizer")
    (tmp_path / "tuned_tokenizer").write_bytes(b"a file in the way")
    with pytest.raises(RunFailed, match="tuned_tokenizer cannot be written"):
        save_tokenizer_beside(
            tmp_path / "tuned.safetensors", load_tokenizer(tmp_path / "base_tokenizer")
        )


def test_a_full_disk_leaves_no_half_tokenizer_beside_a_checkpoint(tmp_path, monkeypatch):
    write_small_tokenizer(tmp_path / "base_tokenizer")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunFailed, match="No space left"):
        save_tokenizer_beside(
            tmp_path / "tuned.safetensors", load_tokenizer(tmp_path / "base_tokenizer")
        )
    assert not [file for file in (tmp_path / "tuned_tokenizer").rglob("*") if file.is_file()]


@pytest.fixture
def one_file(tmp_path):
    """A tokenizer folder as transformers 5 writes it, from that of `tmp_path / "old"`."""
    from transformers import CLIPTokenizerFast

    write_small_tokenizer(tmp_path / "old")
    folder = tmp_path / "model_tokenizer"
    CLIPTokenizerFast.from_pretrained(str(tmp_path / "old")).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    return folder


def test_a_folder_that_transformers_5_wrote_has_one_file(tmp_path, one_file):
    assert find_tokenizers(tmp_path / "model.safetensors") == [one_file]
    text = "a photo of sks man's face, 12 Ünïcode"
    old, new = load_tokenizer(tmp_path / "old"), load_tokenizer(one_file)
    assert new(text).input_ids == old(text).input_ids and new.model_max_length == 77


@pytest.mark.parametrize(
    ("repository", "inside"),
    [
        ("models--openai--clip-vit-large-patch14", ""),
        ("models--stable-diffusion-v1-5--stable-diffusion-v1-5", "tokenizer"),
    ],
)
def test_a_tokenizer_of_one_file_is_found_in_the_hub_cache(
    tmp_path, hub_cache, one_file, repository, inside
):
    cached = hub_cache / repository / "snapshots" / "abc" / inside
    cached.parent.mkdir(parents=True)
    one_file.rename(cached)
    (hub_cache / repository / "refs").mkdir()
    (hub_cache / repository / "refs" / "main").write_text("abc")
    assert find_tokenizers(tmp_path / "other.safetensors") == [cached]
