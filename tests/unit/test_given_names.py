import threading

import pytest
import torch
from likeness.demo import given_names, miniature, quality
from likeness.demo.facts import QUESTIONS, TRAITS, UNKNOWN, trait_values
from likeness.demo.pretrain_data import token_ids
from likeness.demo.words import TOKEN, WORDS

NAME = WORDS.index(TOKEN)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ids(*captions):
    return torch.from_numpy(token_ids(captions)).long()


def said(row):
    return " ".join(WORDS[i] for i in row.tolist() if i < len(WORDS))


def people(count):
    facts = torch.stack(
        [torch.randint(len(a), (count,), generator=generator(1)) for a in QUESTIONS.values()], 1
    )
    return facts, torch.rand(count, len(TRAITS), generator=generator(2)) * 2 - 1


def test_a_name_says_each_attribute_and_trait_in_a_direction_of_its_own():
    facts, traits = people(4)
    directions = given_names.directions()
    assert torch.allclose(directions @ directions.T, torch.eye(len(directions)), atol=1e-5)
    read = given_names.embeddings(facts, traits) @ directions.T / given_names.SIZE
    assert torch.allclose(read[:, -len(TRAITS) :], traits, atol=1e-5)
    skins = read[:, : len(QUESTIONS["skin"])]  # the first that is said
    assert torch.equal(skins.argmax(1), facts[:, list(QUESTIONS).index("skin")])


def test_a_name_does_not_say_what_is_unknown_nor_who_is_a_man():
    facts, traits = people(4)
    for question in QUESTIONS:
        facts[:, list(QUESTIONS).index(question)] = UNKNOWN
    assert given_names.embeddings(facts, 0 * traits).abs().max() == 0
    facts[:, list(QUESTIONS).index("gender")] = 1
    assert given_names.embeddings(facts, 0 * traits).abs().max() == 0


def test_half_of_the_names_say_all_and_some_hardly_anything():
    facts, traits = people(400)
    full = given_names.embeddings(facts, traits)
    drawn = given_names.embeddings(facts, traits, generator())
    share = drawn.square().sum(1) / full.square().sum(1)
    assert 0.45 < (share > 0.9999).float().mean() < 0.6
    assert share.min() < 0.1
    assert torch.equal(drawn, given_names.embeddings(facts, traits, generator()))


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a photo of a man in sunglasses",
         {"a photo of a sks man in sunglasses", "a photo of a man sks in sunglasses"}),
        ("close up portrait of zwx woman face", {"close up portrait of sks woman face"}),
        ("a photo of woman vlk", {"a photo of woman sks"}),
        ("blurry, ugly", set()),
    ],
)  # fmt: skip
def test_a_name_stands_beside_man_or_woman_or_for_a_nonsense_word(caption, expected):
    given = ids(*[caption] * 400)
    changed = given_names.with_names(given, generator())
    assert {said(row) for row in changed} == expected | {said(given[0])}
    assert changed.shape == given.shape
    share = (changed == NAME).any(1).float().mean()
    assert not expected or abs(share - given_names.NAMED) < 0.08


def test_a_caption_of_full_length_keeps_its_end():
    given = ids("a man " + "in the forest " * 40)
    changed = torch.cat([given_names.with_names(given, generator(seed)) for seed in range(20)])
    assert (changed == NAME).any()
    assert torch.equal(changed[:, -1], given[:, -1].expand(20))


def test_each_caption_is_given_its_own_name_in_every_thread():
    text_encoder = miniature.new_text_encoder()
    given, who = ids("a photo of sks man", "a photo of man"), torch.randn(2, miniature.CONTEXT)
    table = text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        plain = text_encoder(given).last_hidden_state
        table[NAME] = who[0]
        expected = text_encoder(given).last_hidden_state
        table[NAME] = 0
    found = [None] * 8

    def read(k):
        with torch.no_grad():
            found[k] = given_names.states(text_encoder, given, who if k % 2 else who.flip(0))

    threads = [threading.Thread(target=read, args=(k,)) for k in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(states, expected) for states in found[1::2])
    assert all(not torch.allclose(states[0], expected[0]) for states in found[0::2])
    assert torch.equal(found[0][1], plain[1])  # a caption without a name


def test_the_token_is_made_the_name_of_a_person():
    text_encoder = miniature.new_text_encoder()
    table = text_encoder.get_input_embeddings().weight
    before, who = table.detach().clone(), quality.person(5000)
    given_names.name(text_encoder, who)
    read = table[NAME] @ given_names.directions().T / given_names.SIZE
    traits = torch.from_numpy(trait_values(who))
    assert torch.allclose(read[-len(TRAITS) :], traits, atol=1e-5)
    assert read[: len(QUESTIONS["skin"])].argmax() == QUESTIONS["skin"].index(who.skin)
    assert torch.equal(table[:NAME], before[:NAME])
    assert torch.equal(table[NAME + 1 :], before[NAME + 1 :])
