"""Prompts become 77 tokens, and the embeddings of the layer that is asked for."""

from types import SimpleNamespace

import pytest
import torch
from likeness.demo.random_model import write_small_tokenizer
from likeness.trainers import text_encoding
from likeness.trainers.errors import RecipeError
from likeness.trainers.text_encoding import encode_text, tokenize, truncation_note
from likeness.trainers.tokenizer import load_tokenizer, truncated_words
from transformers import CLIPTextConfig, CLIPTextModel


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_small_tokenizer(folder)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def text_encoder(tokenizer):
    torch.manual_seed(0)
    size = len(tokenizer)
    config = CLIPTextConfig(
        vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=2, bos_token_id=size - 2, eos_token_id=size - 1,
    )  # fmt: skip
    return CLIPTextModel(config).eval()


def test_prompts_are_padded_and_cut_with_the_end_kept(tokenizer):
    ids = tokenize(tokenizer, ["", "a photo of a man", "word " * 200])
    assert ids.shape == (3, 77)
    assert ids.dtype == torch.int64
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert ids[:, 0].tolist() == [start] * 3
    assert ids[0, 1:].tolist() == [end] * 76
    assert ids[1, 1:].tolist().index(end) == 5  # each word of the prompt is one token
    assert ids[2, -1] == end
    assert end not in ids[2, :-1]


def test_prompts_that_are_cut_are_told_once(tokenizer, caplog, monkeypatch):
    monkeypatch.setattr(text_encoding, "_checked", set())
    long = "abcdefghij " * 9
    assert truncation_note(tokenizer, ["a photo"]) is None
    told = truncation_note(tokenizer, ["a photo", long])
    assert "1 of 2" in told and "'abcdefghij abc" in told and "after 75 tokens" in told
    tokenize(tokenizer, [long, "a photo"], 150)
    for _ in range(2):
        tokenize(tokenizer, [long, "a photo"])
    assert [record.getMessage() for record in caplog.records] == [told]


def test_the_words_that_are_cut_are_named_as_they_were_written(tokenizer):
    long = "a photo, " * 24 + "A Street,at  night, Umbrella"  # 3 x 24 tokens, and 6 for Street
    told = truncation_note(tokenizer, [long])
    assert "'Street, at night, Umbrella' of 'a photo, a photo, " in told
    many = [f"{'photo ' * 75}last{number}" for number in range(7)]
    told = truncation_note(tokenizer, many)
    assert told.startswith("7 of 7") and told.endswith("; and the end of 2 more.")
    assert "'last4' of " in told and "last5" not in told


@pytest.mark.parametrize("most", [75, 150])
def test_a_prompt_of_75_tokens_is_whole_and_one_of_76_is_not(tokenizer, most):
    assert not truncated_words(tokenizer, "photo " * most, most)
    assert truncated_words(tokenizer, "photo " * (most + 1), most) == "photo"
    assert not truncated_words(tokenizer, "photo " * most + ", ,", most)  # no word is lost
    assert not truncated_words(tokenizer, "", most)


def test_one_chunk_is_what_transformers_gives(tokenizer):
    prompts = ["", "a photo of a man", "photo " * 75, "photo " * 90]
    wanted = tokenizer(
        prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    assert torch.equal(tokenize(tokenizer, prompts), wanted.input_ids)


def test_a_caption_beyond_75_tokens_was_cut_whatever_was_asked(tokenizer, text_encoder):
    words = [f"word{number}" for number in range(8)]
    long = " ".join([*["photo"] * 75, *words])
    ids = tokenize(tokenizer, [long, "a man"], 150)
    assert ids.shape == (2, 154)
    first, second = tokenize(tokenizer, ["photo " * 75, " ".join(words)])
    assert torch.equal(ids[0], torch.cat([first, second]))
    short = tokenize(tokenizer, ["a man"])[0]
    assert torch.equal(ids[1], torch.cat([short, short])), "attended to twice, as if once"
    with torch.no_grad():
        states = encode_text(text_encoder, ids)  # (2, 154, 32)
        alone = encode_text(text_encoder, torch.stack([first, second, short]))
    torch.testing.assert_close(states[0], alone[:2].flatten(0, 1))
    torch.testing.assert_close(states[1], alone[2].repeat(2, 1))
    assert tokenize(tokenizer, [long, "a man"]).shape == (2, 77)
    assert tokenize(tokenizer, ["photo " * 300], 150).shape == (1, 154)
    three = tokenize(tokenizer, ["photo " * 76, "photo " * 200, "a"], 225)
    assert three.shape == (3, 6 * 77), "each prompt's own 1, 2 or 3 chunks, repeated whole"


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_clip_skip_equals_a_text_encoder_without_its_last_layers(
    tokenizer, text_encoder, clip_skip
):
    ids = tokenize(tokenizer, ["a photo of a man", ""])
    config = CLIPTextConfig.from_dict(text_encoder.config.to_dict())
    config.num_hidden_layers = 4 - clip_skip
    shorter = CLIPTextModel(config).eval()
    shorter.load_state_dict(text_encoder.state_dict(), strict=False)
    with torch.no_grad():
        wanted = shorter(ids).last_hidden_state
        torch.testing.assert_close(encode_text(text_encoder, ids, clip_skip), wanted)


def test_the_layout_of_transformers_4(tokenizer, text_encoder):
    """There the parts lie beneath an inner module called `text_model`."""

    final_layer_norm = getattr(text_encoder, "text_model", text_encoder).final_layer_norm

    class Older(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.text_model = SimpleNamespace(final_layer_norm=final_layer_norm)
            self.config, self.device = text_encoder.config, text_encoder.device

        def forward(self, *args, **kwargs):
            return text_encoder(*args, **kwargs)

    ids = tokenize(tokenizer, ["a man"])
    with torch.no_grad():
        assert torch.equal(encode_text(Older(), ids, 2), encode_text(text_encoder, ids, 2))


def test_gradients_reach_the_layers_that_are_used(tokenizer, text_encoder):
    text_encoder.zero_grad()
    encode_text(text_encoder, tokenize(tokenizer, ["a man"]), clip_skip=2).square().sum().backward()
    grads = {name: p.grad is not None for name, p in text_encoder.named_parameters()}
    assert all(used for name, used in grads.items() if "layers.0." in name or "layers.1." in name)
    assert not any(used for name, used in grads.items() if "layers.2." in name)


def test_more_layers_than_there_are_is_an_error(tokenizer, text_encoder):
    with pytest.raises(RecipeError, match="3 layers"):
        encode_text(text_encoder, tokenize(tokenizer, [""]), clip_skip=4)
