"""The miniature's tokenizer knows its words whole, in transformers as in our own encoder."""

import json

import pytest
from likeness.demo.random_model import write_small_tokenizer
from likeness.demo.tokenizer import END, START, encode, vocabulary, write_tokenizer
from likeness.demo.words import WORDS, split
from likeness.trainers import tokenizer as clip
from likeness.trainers.text_encoding import tokenize
from likeness.trainers.tokenizer import is_tokenizer, load_tokenizer

TEXTS = (
    "close up portrait of sks man face, in the kitchen, standing, 4K, raw, hrd, hd, high quality, "
    "realism, sharp focus",
    "A photo of a man sks, (in) sunglasses!?",
    "an unseen zebra's bicycle, umbrellas... 1024x768",
    "standings instanding hathat thats",
    "",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def test_every_word_is_one_token_whose_id_is_its_place():
    assert [encode(word) for word in WORDS] == [[place] for place in range(len(WORDS))]


def test_transformers_agrees_on_every_word(tokenizer):
    ids = tokenizer(" ".join(WORDS), add_special_tokens=False)["input_ids"]
    assert ids == list(range(len(WORDS)))


@pytest.mark.parametrize("text", TEXTS)
def test_transformers_agrees_on_known_and_unknown_text(tokenizer, text):
    start, *ids, end = tokenizer(text)["input_ids"]
    assert (start, end) == (len(tokenizer) - 2, len(tokenizer) - 1)
    assert ids == encode(text)


def test_a_prompt_is_padded_to_77_with_the_end(tokenizer):
    ids = tokenizer("a man", padding="max_length", truncation=True)["input_ids"]
    end = vocabulary()[0][END]
    assert len(ids) == 77
    assert ids[3:] == [end] * 74


def test_no_text_is_unknown(tokenizer):
    end = vocabulary()[0][END]
    assert end not in tokenizer("日本 café ☕ ñ", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("word", ["zebra", "umbrellas", "mankind", "skss"])
def test_an_unknown_word_is_several_pieces(word):
    assert len(encode(word)) > 1


def test_the_folder_is_one_that_the_trainers_accept(tmp_path):
    folder = write_tokenizer(tmp_path / "model_tokenizer")
    assert is_tokenizer(folder)
    ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    assert sorted(ids.values()) == list(range(len(ids)))
    assert list(ids)[-2:] == [START, END]


@pytest.mark.parametrize("text", [*TEXTS, "a q, 7 x; café", "word " * 100])
def test_unknown_words_are_told_from_a_prompts_tokens(tokenizer, text):
    ids = tokenize(tokenizer, [text]).flatten().tolist()
    unknown = [word for word in dict.fromkeys(split(text)) if word not in WORDS]
    assert clip.unknown_words(tokenizer, [ids]) == unknown


def test_a_word_that_the_end_of_the_prompt_cuts_is_not_called_unknown(tokenizer):
    ids = tokenize(tokenizer, ["a " * 74 + "umbrellas"]).flatten().tolist()
    assert clip.unknown_words(tokenizer, [ids]) == []


def test_a_word_between_two_chunks_was_told_as_its_last_letters(tokenizer):
    ids = tokenize(tokenizer, ["a " * 74 + "umbrellas"], 150).flatten().tolist()
    assert clip.unknown_words(tokenizer, [ids]) == ["umbrellas"]


def test_unknown_words_are_logged_once(tokenizer, caplog, monkeypatch):
    monkeypatch.setattr(clip, "_warned", set())
    for prompt in ("a photo of a zebra", "a zebra on a bicycle"):
        tokenize(tokenizer, [prompt])
    told = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert told == ["zebra", "bicycle"]


def test_a_tokenizer_that_does_not_say_which_words_were_seen_knows_all(tmp_path):
    write_small_tokenizer(tmp_path)
    other = load_tokenizer(tmp_path)
    assert clip.unknown_words(other, tokenize(other, ["zebra"]).tolist()) == []
